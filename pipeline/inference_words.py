"""Single words as answers: what stands in the gaps of a text, and which words are near a word."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.data.padding import pad_ids, pad_mask
from pipeline.evaluation.word_similarity import WordVectors
from pipeline.models.bert import BertForMaskedWords
from pipeline.stages.word_folder import OpenedWords
from pipeline.text.tokenizer import Tokenizer

_BATCH = 64


@dataclass(frozen=True)
class Filled:
    """A text whose gaps a BERT has filled."""

    text: str
    """The text with the likeliest token in each gap, as the tokenizer spells it."""
    probability: float
    """Of these tokens: the product over the gaps, each of which is filled without looking at the others."""
    candidates: tuple[tuple[tuple[str, float], ...], ...]
    """For each gap the likeliest tokens with their probabilities, the likeliest first."""


class GapFiller:
    """A pretrained BERT that fills the gaps of texts, written as the mask of its tokenizer, [MASK]."""

    def __init__(self, model: BertForMaskedWords, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def fill(self, texts: Sequence[str], *, num_candidates: int = 1) -> list[Filled]:
        """Each text without its gaps; ValueError names one that has none, or is longer than the model reads."""
        num_tokens = self.model.config.vocab_size - len(self.tokenizer.special_ids)
        if not 1 <= num_candidates <= num_tokens:
            raise ValueError(f"candidates of a gap: found {num_candidates}, allowed are 1 to {num_tokens}")
        rows = [self._encode(text) for text in texts]
        device = next(self.model.parameters()).device
        results: list[Filled] = []
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            input_ids = pad_ids(batch, self.tokenizer.pad_id).to(device)
            mask = pad_mask([np.ones(len(row), dtype=bool) for row in batch]).to(device)
            is_gap = input_ids == self.tokenizer.id_of("mask")
            hidden = self.model(input_ids, torch.zeros_like(input_ids), mask, is_gap)
            for ids, gaps, states in zip(input_ids, is_gap, hidden, strict=True):
                logits = self.model.mlm_logits(states[gaps])
                logits[:, sorted(self.tokenizer.special_ids)] = -torch.inf
                found = logits.log_softmax(-1).topk(num_candidates)  # (gaps, candidates)
                filled = ids.masked_scatter(gaps, found.indices[:, 0]).tolist()
                candidates = tuple(
                    tuple(zip(self.tokenizer.tokens(tokens.tolist()), values.exp().tolist(), strict=True))
                    for tokens, values in zip(found.indices, found.values, strict=True)
                )
                probability = float(found.values[:, 0].sum().exp())
                results.append(Filled(self.tokenizer.decode(filled), probability, candidates))
        return results

    def _encode(self, text: str) -> np.ndarray:
        """[CLS] text [SEP]: no text spells a special token, so the gaps are put between what stands around them."""
        gap, longest = self.tokenizer.id_of("mask"), self.model.config.max_length
        mask = self.tokenizer.special["mask"]
        first, *others = self.tokenizer.encode_batch(text.split(mask))
        if not others:
            raise ValueError(f"expected a text with {mask} in it, found {text[:60]!r}")
        ids = [self.tokenizer.id_of("cls"), *first]
        for part in others:
            ids += [gap, *part]
        ids.append(self.tokenizer.id_of("sep"))
        if len(ids) > longest:
            raise ValueError(f"text of {len(ids) - 2} tokens, the model reads at most {longest - 2}: {text[:60]!r}...")
        return np.array(ids, dtype=np.int64)


class Neighbours:
    """Word vectors: the nearest words of words."""

    def __init__(self, opened: OpenedWords) -> None:
        self.vectors = WordVectors(opened.words, opened.matrix)
        self.composer = opened.composer

    def nearest(self, words: Sequence[str], *, num_neighbours: int) -> list[tuple[tuple[str, float], ...]]:
        """The nearest words of each word, with their cosines; ValueError names a word that has no vector."""
        return [self._nearest(word.strip().lower(), num_neighbours) for word in words]

    def _nearest(self, word: str, num_neighbours: int) -> tuple[tuple[str, float], ...]:
        vectors = self.vectors
        if word not in vectors.numbers:
            if self.composer is None:
                near = difflib.get_close_matches(word, vectors.words, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise ValueError(f"'{word}' is not among the {len(vectors.words)} words{hint}")
            rows = np.concatenate([vectors.units, self.composer.vector(word)[None]])
            vectors = WordVectors([*vectors.words, word], rows)
        return vectors.nearest(word, num_neighbours=num_neighbours)
