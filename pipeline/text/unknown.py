"""What a tokenizer makes of some texts, and how much it does not know: what it turns into its unknown token is lost."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.chunks import chunks
from pipeline.text.tokenizer import Tokenizer


def unknown_characters(text: str, ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """The characters of a text that the tokenizer does not know, in their order; `ids` are those of the text."""
    unknown = _unknown_id(tokenizer)
    if unknown is None or unknown not in ids:
        return []
    return [character for character in dict.fromkeys(text) if unknown in tokenizer.encode(character)]


class UnknownCounts:
    """Counts of tokens, and of the characters that have none."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._unknown = _unknown_id(tokenizer)
        self._suspects: Counter[str] = Counter()
        self._num_tokens = self._num_unknown = 0

    def add(self, texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> None:
        """Counts some texts and their ids."""
        for text, ids in zip(texts, encoded, strict=True):
            self._num_tokens += len(ids)
            found = 0 if self._unknown is None else ids.count(self._unknown)
            if found:
                self._num_unknown += found
                self._suspects.update(text)

    @property
    def rate(self) -> float:
        """Share of the unknown token among all; 0 where there are none."""
        return self._num_unknown / max(1, self._num_tokens)

    def characters(self) -> list[str]:
        """The characters that the tokenizer does not know, the most frequent first, ties by code point."""
        ranked = sorted((-count, character) for character, count in self._suspects.items())
        return [character for _, character in ranked if self._unknown in self._tokenizer.encode(character)]


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    return tokenizer.id_of("unk") if "unk" in tokenizer.special else None


def text_statistics(tokenizer: Tokenizer, texts: Iterable[str], *, size_at_once: int) -> dict[str, int | float | str]:
    """Size and hash of a tokenizer, the bytes of a token, and the share of the unknown one; `size_at_once` in
    characters."""
    unknown = UnknownCounts(tokenizer)
    num_bytes = num_tokens = 0
    for some in chunks(texts, len, size_at_once=size_at_once):
        encoded = tokenizer.encode_batch(some)
        num_bytes += sum(len(text.encode()) for text in some)
        num_tokens += sum(map(len, encoded))
        unknown.add(some, encoded)
    return {
        "vocab_size": tokenizer.vocab_size,
        "hash": tokenizer.hash,
        "bytes_per_token": num_bytes / num_tokens,
        "unknown_rate": unknown.rate,
    }
