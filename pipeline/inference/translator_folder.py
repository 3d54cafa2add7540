"""The folder of a translator: model in Hugging Face layout, tokenizer, form of the texts, settings of the search."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from pipeline.artifacts import CONFIG, load_model, publish, read_json, save_model, write_json
from pipeline.config import first_problem
from pipeline.inference.translator import SearchConfig, Translator
from pipeline.models.huggingface.marian import (
    GNMT_PENALTY,
    is_marian,
    marian_generation_settings,
    translation_from_huggingface,
    translation_to_huggingface,
)
from pipeline.text.forms import FORM, MosesText, load_form, save_form
from pipeline.text.given_tokenizer import PAD
from pipeline.text.tokenizer import TOKENIZER, load_tokenizer

_log = logging.getLogger(__name__)

GENERATION = "generation_config.json"
TOKENIZER_HASH = "tokenizer_hash"
"""The key of config.json for the hash of the tokenizer whose ids the model knows."""


def save_translator(folder: Path, translator: Translator) -> None:
    """Publishes a model folder in Hugging Face layout, with the settings of the search in generation_config.json."""
    assert not translator.others, "a folder holds one model"
    model, search = translator.model, translator.search
    settings = marian_generation_settings(
        model.config,
        num_beams=search.beam_size,
        normalisation=search.normalisation,
        length_penalty=search.length_penalty,
        suppressed=translator.suppressed,
    )
    if is_marian(model.config):
        _warn_of_other_programs(folder, translator)
    own = {"normalisation": search.normalisation, "max_extra_tokens": search.max_extra_tokens, "stop": search.stop}
    config, state = translation_to_huggingface(model)
    with publish(folder) as temporary:
        save_model(temporary, config | {TOKENIZER_HASH: translator.tokenizer.hash}, state)
        translator.tokenizer.save(temporary)
        write_json(temporary / GENERATION, settings | own)
        save_form(temporary, translator.form)


def _warn_of_other_programs(folder: Path, translator: Translator) -> None:
    """What transformers and CTranslate2 do otherwise with a folder that they open."""
    search, form, special = translator.search, translator.form, translator.tokenizer.special
    if special["pad"] != PAD or "unk" not in special:
        _log.warning(
            "%s: CTranslate2 does not convert this model: its tokenizer calls the padding %s and the unknown token %s, "
            "where it needs %s and any unknown token",
            folder,
            special["pad"],
            special.get("unk"),
            PAD,
        )
    if isinstance(form, MosesText):
        case = "lower-cased " if form.lowercase else ""
        _log.warning(
            "%s: this model reads %sMoses tokens of the language %s and writes those of %s, as its %s says; "
            "transformers and CTranslate2 do not read that file: make tokens of what goes into them, and text of what "
            "comes out, as pipeline translate does",
            folder,
            case,
            form.src,
            form.tgt,
            FORM,
        )
    if search.normalisation == "gnmt" and search.beam_size > 1:
        _log.warning(
            "%s: this search divides by ((5 + n) / 6) ** %g, GNMT's penalty, and transformers knows only "
            "n ** length_penalty: %s names ours %s, and transformers searches with its own default",
            folder,
            search.length_penalty,
            GENERATION,
            GNMT_PENALTY,
        )


def open_translator(folder: Path) -> Translator:
    """The translator in a folder; ValueError names the folder and what is wrong.

    The folder is ours, or that of any MarianMTModel with a `tokenizer.json` whose last id is <pad>.
    """
    found = load_model(folder)
    try:
        model = translation_from_huggingface(found.config, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    tokenizer = load_tokenizer(folder)
    tokenizer.check_fits(model.config.vocab_size, folder)
    if tokenizer.pad_id != model.config.vocab_size - 1:
        raise ValueError(
            f"{folder}: the tokenizer does not fit the model: its pad id is {tokenizer.pad_id}, "
            f"the model's is its last row, {model.config.vocab_size - 1}"
        )
    if found.config.get(TOKENIZER_HASH, tokenizer.hash) != tokenizer.hash:
        raise ValueError(
            f"{folder / TOKENIZER}: not the tokenizer of this model, whose {TOKENIZER_HASH} is in {folder / CONFIG}: "
            "its ids may mean other tokens. Put back the files of the tokenizer that the model was trained with; only "
            f"where you know that the ids are the same, take the key out of {CONFIG}"
        )
    return Translator(model.eval(), tokenizer, _recommended(folder), load_form(folder))


def _recommended(folder: Path) -> SearchConfig:
    """The search that a model folder recommends. ValueError names its file and the key there."""
    settings = read_json(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    keys = {
        "beam_size": ("num_beams", 4),
        "normalisation": ("normalisation", "length"),
        "length_penalty": (GNMT_PENALTY if GNMT_PENALTY in settings else "length_penalty", 1.0),
        "max_extra_tokens": ("max_extra_tokens", 50),
        "stop": ("stop", "settled"),
    }
    try:
        return SearchConfig.model_validate({name: settings.get(key, value) for name, (key, value) in keys.items()})
    except ValidationError as error:
        names = {name: key for name, (key, _) in keys.items()}
        raise ValueError(f"{folder / GENERATION}: {first_problem(error, names)}") from error


def open_ensemble(folders: Sequence[Path]) -> Translator:
    """The translators of several folders as one, which searches as the first recommends.

    ValueError names two folders whose tokenizers, or forms of text, differ: their models do not mean the same by the
    same token.
    """
    first, *rest = [open_translator(folder) for folder in folders]
    for folder, other in zip(folders[1:], rest, strict=True):
        if other.tokenizer.hash != first.tokenizer.hash:
            raise ValueError(f"{folder}: its tokenizer is not that of {folders[0]}: an ensemble shares one tokenizer")
        if other.form != first.form:
            theirs, ours = (json.dumps(one.form.model_dump()) for one in (other, first))
            raise ValueError(
                f"{folder}: the form of its texts is {theirs}, that of {folders[0]} is {ours}, as {FORM} says, without "
                "which it is plain: an ensemble reads texts of one form"
            )
    return replace(first, others=tuple(other.model for other in rest))
