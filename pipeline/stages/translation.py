"""Translating texts with a model: the search, and the folder that holds model, tokenizer and settings of the search.

Shared by the stage translate and by whatever opens its folder later. What is found for a text does not depend on the
texts beside it. Legend: B texts of a batch, S source length with EOS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from pipeline.artifacts import load_model, publish, read_json, save_model, write_json
from pipeline.config import ByTokens, Config
from pipeline.data.batches import Sizes
from pipeline.data.padding import pad_ids, pad_mask
from pipeline.data.plan import plan_epoch
from pipeline.decoding.beam import Hypothesis, Normalisation, beam_search, greedy_search
from pipeline.decoding.protocol import S, StepModel
from pipeline.models.huggingface.marian import (
    marian_generation_settings,
    translation_from_huggingface,
    translation_to_huggingface,
)
from pipeline.models.recurrent import Recurrent
from pipeline.models.seq2seq import Seq2Seq
from pipeline.progress import progress
from pipeline.text.forms import PLAIN, MosesText, PlainText, into_form, load_form, out_of_form, save_form
from pipeline.text.tokenizer import Tokenizer, load_tokenizer

GENERATION = "generation_config.json"
_TOKENS_PER_BATCH = 2048


class SearchConfig(Config):
    """How translations are searched."""

    beam_size: PositiveInt
    """Hypotheses that stay open for each source; 1 is greedy search, which normalises nothing."""
    normalisation: Normalisation
    """What a log-probability is divided by; `transformers` knows `length` alone."""
    length_penalty: NonNegativeFloat
    """Exponent of the normalisation; 0 prefers short translations, larger values longer ones."""
    max_extra_tokens: NonNegativeInt
    """Longest translation: the tokens of its source and so many more (Vaswani et al. 2017, section 6.1: 50)."""

    @property
    def greedy(self) -> "SearchConfig":
        """The same as a greedy search."""
        return self.model_copy(update={"beam_size": 1})


@dataclass(frozen=True)
class Translation:
    """What was found for one text."""

    text: str
    tokens: tuple[int, ...]
    """Its tokens without EOS."""
    log_prob: float
    """log p(tokens, EOS | source)."""
    score: float
    """`log_prob` after length normalisation."""


@dataclass(frozen=True)
class Translator:
    """A trained model at work; the model is in evaluation mode."""

    model: Seq2Seq | Recurrent
    tokenizer: Tokenizer
    search: SearchConfig
    form: PlainText | MosesText = PLAIN
    """The form of the texts that the model reads and writes."""

    def translate_plain(self, texts: Sequence[str]) -> list[Translation]:
        """The best translation of each text as people write it."""
        found = self.translate([into_form(text, self.form, "src") for text in texts])
        return [replace(one, text=out_of_form(one.text, self.form)) for one in found]

    def translate(self, texts: Sequence[str], *, too_long: Literal["refuse", "cut"] = "refuse") -> list[Translation]:
        """The best translation of each text, in the order of the texts; both are in the model's form.

        A text longer than the model reads is a ValueError that names it, or its end is cut off: for evaluation, where
        no text may be missing. A text without a token stays one.
        """
        sources = self.encode(texts, too_long=too_long)
        found: list[Translation] = [Translation(text="", tokens=(), log_prob=0.0, score=0.0)] * len(sources)
        filled = np.array([i for i, source in enumerate(sources) if len(source) > 1], dtype=np.int64)
        if len(filled) == 0:
            return found
        lengths = np.array([len(sources[i]) for i in filled], dtype=np.int64)
        batching = ByTokens(kind="tokens", tokens_per_step=max(_TOKENS_PER_BATCH, int(lengths.max())))
        steps = plan_epoch(Sizes(lengths=lengths, num_targets={}), batching, seed=0, epoch=0)
        for indices in progress(
            [filled[step.indices] for step in steps],
            name=f"translating, beam {self.search.beam_size}",
            unit="texts",
            total=len(filled),
            size=len,
        ):
            for i, best in zip(indices, self._search([sources[i] for i in indices]), strict=True):
                text = self.tokenizer.decode(best.tokens)
                found[i] = Translation(text, best.tokens, log_prob=best.log_prob, score=best.score)
        return found

    def encode(self, texts: Sequence[str], *, too_long: Literal["refuse", "cut"]) -> list[Int[np.ndarray, "_"]]:
        """Source ids with EOS."""
        longest = self.model.config.max_length
        encoded = self.tokenizer.encode_batch(texts)
        for text, ids in zip(texts, encoded, strict=True):
            if len(ids) >= longest and too_long == "refuse":
                raise ValueError(f"text of {len(ids)} tokens, the model reads at most {longest - 1}: {text[:60]!r}...")
        return [np.array([*ids[: longest - 1], self.tokenizer.eos_id], dtype=np.int64) for ids in encoded]

    @torch.no_grad()
    def _search(self, sources: Sequence[Int[np.ndarray, "_"]]) -> list[Hypothesis]:
        assert not self.model.training, "dropout would act in the search"
        device = next(self.model.parameters()).device
        src = pad_ids(sources, self.tokenizer.pad_id).to(device)
        mask = pad_mask([np.ones(len(source), dtype=bool) for source in sources]).to(device)
        match self.model:
            case Seq2Seq():
                return self._find(self.model, self.model.start(src, mask), mask)
            case Recurrent():
                return self._find(self.model, self.model.start(src, mask), mask)

    def _find(self, model: StepModel[S], state: S, src_mask: Bool[Tensor, "B S"]) -> list[Hypothesis]:
        search, bos, eos = self.search, self.tokenizer.bos_id, self.tokenizer.eos_id
        max_lengths = (src_mask.sum(1) + search.max_extra_tokens).clamp(max=self.model.config.max_length)
        if search.beam_size == 1:
            return greedy_search(model, state, bos=bos, eos=eos, max_lengths=max_lengths)
        found = beam_search(
            model,
            state,
            bos=bos,
            eos=eos,
            max_lengths=max_lengths,
            beam_size=search.beam_size,
            num_best=1,
            normalisation=search.normalisation,
            length_penalty=search.length_penalty,
        )
        return [hypotheses[0] for hypotheses in found]


def save_translator(folder: Path, translator: Translator) -> None:
    """Publishes a model folder in Hugging Face layout, with the settings of the search in generation_config.json."""
    model, search = translator.model, translator.search
    settings = marian_generation_settings(
        model.config, num_beams=search.beam_size, length_penalty=search.length_penalty
    )
    own = {"normalisation": search.normalisation, "max_extra_tokens": search.max_extra_tokens}
    with publish(folder) as temporary:
        save_model(temporary, *translation_to_huggingface(model))
        translator.tokenizer.save(temporary)
        write_json(temporary / GENERATION, settings | own)
        save_form(temporary, translator.form)


def open_translator(folder: Path) -> Translator:
    """The translator in a folder, ours or a published Marian's; ValueError names the folder and what is wrong."""
    found = load_model(folder)
    try:
        model = translation_from_huggingface(found.config, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    tokenizer = load_tokenizer(folder)
    tokenizer.check_fits(model.config.vocab_size, folder)
    settings = read_json(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    search = SearchConfig(
        beam_size=settings.get("num_beams", 4),
        normalisation=settings.get("normalisation", "length"),
        length_penalty=settings.get("length_penalty", 1.0),
        max_extra_tokens=settings.get("max_extra_tokens", 50),
    )
    return Translator(model.eval(), tokenizer, search, load_form(folder))
