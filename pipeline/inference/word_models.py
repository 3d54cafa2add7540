"""Single words as answers: what stands in the gaps of a text, and which words are near a word."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.data.examples.padding import pad_ids, pad_mask
from pipeline.evaluation.word_similarity import WordVectors
from pipeline.inference.word_folder import OpenedWords
from pipeline.models.bert import BertForMaskedWords
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.wordpiece import CONTINUES

_BATCH = 64


@dataclass(frozen=True)
class Filled:
    """A text whose gaps a BERT has filled."""

    text: str
    """The text as it was written, with the likeliest token in each gap."""
    probability: float
    """Of these tokens: the product over the gaps, each of which is filled without looking at the others."""
    candidates: tuple[tuple[tuple[str, float], ...], ...]
    """For each gap the likeliest tokens with their probabilities, the likeliest first."""


class GapFiller:
    """A pretrained BERT that fills the gaps of texts, written as the mask of its tokenizer, [MASK]."""

    def __init__(self, model: BertForMaskedWords, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        # Spare rows of the embeddings stand for no token.
        self._allowed = tokenizer.ids_from(0) - tokenizer.special_ids

    @torch.inference_mode()
    def fill(self, texts: Sequence[str], *, num_candidates: int = 1) -> list[Filled]:
        """Each text without its gaps; ValueError names one that has none, or is longer than the model reads."""
        if not 1 <= num_candidates <= len(self._allowed):
            raise ValueError(f"candidates of a gap: found {num_candidates}, allowed are 1 to {len(self._allowed)}")
        never = sorted(set(range(self.model.config.vocab_size)) - self._allowed)
        gap = self.tokenizer.id_of("mask")
        parts = [text.split(self.tokenizer.special["mask"]) for text in texts]
        rows = [self._encode(text, around) for text, around in zip(texts, parts, strict=True)]
        device = next(self.model.parameters()).device
        results: list[Filled] = []
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            input_ids = pad_ids(batch, self.tokenizer.pad_id).to(device)
            is_read = pad_mask([np.ones(len(row), dtype=bool) for row in batch]).to(device)
            is_gap = input_ids == gap
            hidden = self.model(input_ids, torch.zeros_like(input_ids), is_read, is_gap)
            for gaps, states, around in zip(is_gap, hidden, parts[start : start + _BATCH], strict=True):
                logits = self.model.mlm_logits(states[gaps])
                logits[:, never] = -torch.inf
                found = logits.log_softmax(-1).topk(num_candidates)  # (gaps, candidates)
                candidates = tuple(
                    tuple(zip(self.tokenizer.tokens(tokens.tolist()), values.exp().tolist(), strict=True))
                    for tokens, values in zip(found.indices, found.values, strict=True)
                )
                probability = float(found.values[:, 0].sum().exp())
                results.append(
                    Filled(self._put_together(around, found.indices[:, 0].tolist()), probability, candidates)
                )
        return results

    def _put_together(self, around: Sequence[str], tokens: Sequence[int]) -> str:
        """What stands around the gaps with a token in each; one that goes on with a word stands at its end."""
        text = around[0]
        for token, part in zip(tokens, around[1:], strict=True):
            (piece,) = self.tokenizer.tokens([token])
            if self.tokenizer.is_wordpiece and piece.startswith(CONTINUES):
                text = text.rstrip() + piece.removeprefix(CONTINUES)
            else:
                word = self.tokenizer.decode([token])
                text += word.lstrip() if not text or text[-1].isspace() else word
            text += part
        return text

    def _encode(self, text: str, around: Sequence[str]) -> np.ndarray:
        """[CLS] text [SEP]: no text spells a special token, so the gaps are put between what stands around them."""
        gap, longest = self.tokenizer.id_of("mask"), self.model.config.max_length
        first, *others = self.tokenizer.encode_batch(around)
        if not others:
            raise ValueError(f"expected a text with {self.tokenizer.special['mask']} in it, found {text[:60]!r}")
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
