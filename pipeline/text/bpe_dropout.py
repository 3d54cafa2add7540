"""BPE-dropout (Provilkov et al. 2020): one text in many segmentations, so that a model learns what its subwords share.

Each time that BPE looks for the next merge, every merge that is possible is left out with some probability. What is
drawn depends on the seed alone; the `tokenizers` library draws from a generator that cannot be seeded.
"""

import json
from collections.abc import Sequence
from random import Random

from pipeline.text.tokenizer import Tokenizer

_DRAWS_OF_A_WORD = 64
"""Segmentations that are drawn of each word; a text then takes one of them at random, which costs a look-up."""
_PLAIN = {"continuing_subword_prefix": "", "end_of_word_suffix": "", "byte_fallback": False, "ignore_merges": False}


class BpeDropout:
    """Segments texts as their BPE tokenizer does, but for the merges that it leaves out."""

    def __init__(self, tokenizer: Tokenizer, *, dropout: float, seed: int) -> None:
        """ValueError for a tokenizer that does more than to merge pairs, or anything else."""
        model = json.loads(tokenizer.backend.to_str())["model"]
        if model["type"] != "BPE":
            raise ValueError(f"BPE-dropout needs a tokenizer of type BPE, found {model['type']}")
        for key, plain in _PLAIN.items():
            if (model.get(key) or plain) != plain:
                raise ValueError(f"BPE-dropout needs a tokenizer with {key}: {plain!r}, found {model[key]!r}")
        merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        self._ranks: dict[tuple[str, ...], int] = {merge: rank for rank, merge in enumerate(merges)}
        self._vocab: dict[str, int] = model["vocab"]
        self._backend = tokenizer.backend
        self._dropout = dropout
        self._random = Random(seed)
        self._drawn: dict[str, list[list[int]]] = {}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens; another call draws anew."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        if self._backend.normalizer is not None:
            text = self._backend.normalizer.normalize_str(text)
        words = [text]
        if self._backend.pre_tokenizer is not None:
            words = [word for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(text)]
        ids: list[int] = []
        for word in words:
            drawn = self._drawn.setdefault(word, [])
            number = self._random.randrange(_DRAWS_OF_A_WORD)
            if number >= len(drawn):
                drawn.append(self._segment(word))
                number = -1
            ids += drawn[number]
        return ids

    def _segment(self, word: str) -> list[int]:
        """Algorithm 1 of the paper."""
        parts = list(word)
        if any(character not in self._vocab for character in parts):
            # Unknown characters: as without dropout, whatever the tokenizer makes of them.
            return [token.id for token in self._backend.model.tokenize(word)]
        draw, ranks, dropout = self._random.random, self._ranks, self._dropout
        while True:
            best, place = len(ranks), -1
            for i in range(len(parts) - 1):
                rank = ranks.get((parts[i], parts[i + 1]))
                if rank is not None and draw() >= dropout and rank < best:
                    best, place = rank, i
            if place < 0:
                return [self._vocab[part] for part in parts]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
