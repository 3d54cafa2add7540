"""A tokenizer that a user has, as the translation models need it: <eos> is id 0, padding the last, and begins a target.

Its pieces and how it cuts a text stay; where its special tokens have other ids, or it has none, the ids are new. Its
padding is called <pad>, and it has an unknown token: CTranslate2 leaves out the last token of a vocabulary where it is
called so, and opens no model without an unknown one.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, pre_tokenizers, processors

from pipeline.text.sentencepiece_file import read_sentencepiece
from pipeline.text.tokenizer import TOKENIZER, VOCABULARY, Role, Tokenizer, load_tokenizer

_USUAL_EOS = ("<eos>", "</s>")
"""What the end of a text is called where nothing names it; the first where there is none yet."""
_USUAL_PAD = "[PAD]"
"""What the padding may be called before it is called as here."""
PAD = "<pad>"
"""What the padding is called."""
_UNKNOWN = "<unk>"
"""What the unknown token is called where there is none yet."""


def translation_tokenizer(given: Path) -> Tokenizer:
    """The tokenizer of a folder of Hugging Face or of a `.model` file of SentencePiece, in the ids of translation.

    ValueError names the path and what is wrong with it.
    """
    if given.suffix == ".model":
        backend, special = read_sentencepiece(given)
    elif given.is_dir():
        found = load_tokenizer(given)
        if _is_ready(found):
            return found
        backend, special = found.backend, dict(found.special)
    else:
        raise ValueError(
            f"{given}: no tokenizer; allowed are a folder with a {TOKENIZER} or {VOCABULARY}, and a .model file of "
            "SentencePiece. Codes of subword-nmt are not read: save a tokenizer with their merges as a tokenizer.json"
        )
    content = json.loads(backend.to_str())
    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    eos = special.get("eos") or next((token for token in _USUAL_EOS if token in ids), _USUAL_EOS[0])
    known = _unknown(content["model"])
    replaced = _padding(special, ids, known)
    unknown = next(token for token in (special.get("unk"), known, _UNKNOWN) if token and token not in (eos, PAD))
    ids.setdefault(unknown, len(ids))
    others = [token for token in sorted(ids, key=ids.__getitem__) if token not in (eos, PAD, replaced)]
    new = {token: number for number, token in enumerate([eos, *others, PAD])}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != replaced]
    _renumber(content, new, unknown)
    _make_special(content, {token: new[token] for token in (eos, unknown, PAD)})
    renumbered = tokenizers.Tokenizer.from_str(json.dumps(content))
    renumbered.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", pair=f"$A {eos} $B {eos}", special_tokens=[(eos, 0)]
    )
    if content["model"]["type"] == "Unigram":
        _hide_special(renumbered, byte_fallback=content["model"]["byte_fallback"])
    # What else has a role there keeps it: a folder that is opened again finds it too.
    roles = dict(special)
    roles["eos"], roles["pad"], roles["bos"], roles["unk"] = eos, PAD, PAD, unknown
    return Tokenizer(renumbered, roles, folder=given)


def _is_ready(tokenizer: Tokenizer) -> bool:
    special = tokenizer.special
    if not {"eos", "pad", "bos", "unk"} <= special.keys():
        return False
    last = tokenizer.vocab_size - 1
    has_ids = (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (0, last, last)
    return has_ids and special["pad"] == PAD and special["unk"] not in (special["eos"], PAD)


def _padding(special: Mapping[Role, str], ids: Mapping[str, int], unknown: str) -> str:
    """The padding of another name, which `PAD` takes the place of; empty where there is none, or it is something else
    besides.
    """
    found = special.get("pad", _USUAL_PAD)
    others = {unknown, *(token for role, token in special.items() if role not in ("pad", "bos"))}
    return found if found in ids and found not in others and PAD not in ids else ""


def _unknown(model: Mapping[str, Any]) -> str:
    """The unknown token that the model itself knows; empty where it has none."""
    if model["type"] == "Unigram":
        return "" if model["unk_id"] is None else str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token") or ""


def _renumber(content: dict[str, Any], ids: Mapping[str, int], unknown: str) -> None:
    """Gives all tokens, those beside the model's own too, their new ids in the model."""
    model = content["model"]
    if model["type"] == "Unigram":
        scores = dict(model["vocab"])
        model["vocab"] = [[token, scores.get(token, 0.0)] for token in ids]
        model["unk_id"] = ids[unknown]
    else:
        model["vocab"] = dict(ids)
        model["unk_token"] = unknown
    for token in content["added_tokens"]:
        token["id"] = ids[token["content"]]


def _make_special(content: dict[str, Any], ids: Mapping[str, int]) -> None:
    """Text cannot spell these tokens, and no text is put together from them."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [token for token in content["added_tokens"] if token["content"] not in ids]
    added += [{"id": number, "content": token, **flags} for token, number in ids.items()]
    content["added_tokens"] = sorted(added, key=lambda token: token["id"])


def _hide_special(backend: tokenizers.Tokenizer, *, byte_fallback: bool) -> None:
    """Parts the last character of what spells a special token: the unigram model finds all its tokens in a text."""
    special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    spelled = [f"(?<={re.escape(one[:-1])}){re.escape(one[-1])}" for one in special if len(one) > 1]
    spelled += ["(?<=<0x[0-9A-F]{2})>"] if byte_fallback else []
    parted = pre_tokenizers.Split(Regex("|".join(spelled)), "isolated")
    before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*before, parted])
