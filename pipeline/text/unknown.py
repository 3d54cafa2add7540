"""What a tokenizer makes of some texts, and how much it does not know: what it turns into its unknown token is lost.

Lost is a whole word where the tokenizer finds no pieces of it that spell all of it, as WordPiece, and else a character.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from tokenizers import models

from pipeline.chunks import chunks
from pipeline.text.tokenizer import PlacedTokens, Tokenizer

_LONGEST_SHOWN = 40
"""Characters of a word that are shown: one of more than 100 is unknown to WordPiece whatever they are."""


def has_unknown(ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether the unknown token is among some ids."""
    unknown = _unknown_id(tokenizer)
    return unknown is not None and unknown in ids


def unknown_kind(tokenizer: Tokenizer) -> Literal["words", "characters"]:
    """What `unknown_parts` of it are."""
    return "words" if isinstance(tokenizer.backend.model, models.WordPiece | models.WordLevel) else "characters"


def unknown_parts(text: str, tokenizer: Tokenizer, *, num_tokens: int) -> list[str]:
    """The words or characters among the first tokens of a text that the tokenizer does not know, in their order."""
    (placed,) = tokenizer.encode_placed([text])
    first = PlacedTokens(placed.ids[:num_tokens], placed.offsets[:num_tokens])
    return list(dict.fromkeys(_parts(text, first, tokenizer)))


def shown_parts(parts: Sequence[str], *, most: int) -> str:
    """The first of some words or characters for people, long words cut."""
    return " ".join(part if len(part) <= _LONGEST_SHOWN else f"{part[:_LONGEST_SHOWN]}..." for part in parts[:most])


class UnknownCounts:
    """Counts of tokens, and of the words or characters that have none."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._rate = _Rate(tokenizer)
        self._parts: Counter[str] = Counter()

    def add(self, texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> None:
        """Counts some texts and their ids."""
        self._rate.add(encoded)
        pairs = zip(texts, encoded, strict=True)
        lost = [text for text, ids in pairs if has_unknown(ids, self._tokenizer)]
        for text, placed in zip(lost, self._tokenizer.encode_placed(lost), strict=True):
            self._parts.update(_parts(text, placed, self._tokenizer))

    @property
    def rate(self) -> float:
        """Share of the unknown token among all; 0 where there are none."""
        return self._rate.value

    def parts(self) -> list[str]:
        """The words or characters that the tokenizer does not know, the most frequent first, ties by code point."""
        return [part for _, part in sorted((-count, part) for part, count in self._parts.items())]


class _Rate:
    """Share of the unknown token among all."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._unknown = _unknown_id(tokenizer)
        self._num_tokens = self._num_unknown = 0

    def add(self, encoded: Sequence[Sequence[int]]) -> None:
        for ids in encoded:
            self._num_tokens += len(ids)
            self._num_unknown += 0 if self._unknown is None else ids.count(self._unknown)

    @property
    def value(self) -> float:
        return self._num_unknown / max(1, self._num_tokens)


def _parts(text: str, placed: PlacedTokens, tokenizer: Tokenizer) -> Iterator[str]:
    """What the unknown tokens of a text stand for there."""
    unknown, are_words = _unknown_id(tokenizer), unknown_kind(tokenizer) == "words"
    for token, (begin, end) in zip(placed.ids, placed.offsets, strict=True):
        part = text[begin:end]
        if token != unknown or not part:
            continue
        # Some tokenizers make one token of several unknown characters that stand together.
        alone = [] if are_words or len(part) == 1 else [one for one in part if unknown in tokenizer.encode(one)]
        yield from alone or [part]


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    return tokenizer.id_of("unk") if "unk" in tokenizer.special else None


def text_statistics(tokenizer: Tokenizer, texts: Iterable[str], *, size_at_once: int) -> dict[str, int | float | str]:
    """Size and hash of a tokenizer, the bytes of a token, and the share of the unknown one; `size_at_once` in
    characters."""
    unknown = _Rate(tokenizer)
    num_bytes = num_tokens = 0
    for some in chunks(texts, len, size_at_once=size_at_once):
        encoded = tokenizer.encode_batch(some)
        num_bytes += sum(len(text.encode()) for text in some)
        num_tokens += sum(map(len, encoded))
        unknown.add(encoded)
    return {
        "vocab_size": tokenizer.vocab_size,
        "hash": tokenizer.hash,
        "bytes_per_token": num_bytes / num_tokens,
        "unknown_rate": unknown.value,
    }
