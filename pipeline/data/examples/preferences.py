"""Chosen and rejected answers -> PreferenceBatch (DPO) and RewardBatch (Bradley-Terry).

P pairs, T the longest answer with its prompt, R1 and R2 numbers of annotators of two texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from pipeline.data.batches import PreferenceBatch, RewardBatch, Sizes
from pipeline.data.examples.instructions import TooLong
from pipeline.data.examples.padding import pad_ids, pad_mask
from pipeline.data.examples.rating_pairs import PreferencePair
from pipeline.text.chat import SHORTEST_PROMPT, encode_prompt, encode_response
from pipeline.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class EncodedPair:
    """The ids of both conversations of a pair. They share the prompt, which ends with the <assistant> token."""

    prompt: Int[np.ndarray, "_"]
    chosen: Int[np.ndarray, "_"]
    """Prompt, response and <eos>."""
    rejected: Int[np.ndarray, "_"]

    @property
    def length(self) -> int:
        """Tokens of the longer conversation."""
        return max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class PreferenceReport:
    """What became of the pairs."""

    num_pairs: int
    num_shortened: int
    """Pairs whose prompt lost tokens on the left."""
    num_dropped: int
    """Pairs with a response that does not fit."""
    kept: tuple[int, ...]
    """The numbers of the pairs that were kept."""


@dataclass(frozen=True)
class PreferenceExamples:
    """Pairs for direct preference optimization; the loss counts pairs."""

    pairs: tuple[EncodedPair, ...]
    reference_chosen: Float[np.ndarray, "N"]
    """Sum of the reference model's log-probabilities of each chosen response; zeros without a reference."""
    reference_rejected: Float[np.ndarray, "N"]
    pad_id: int

    def with_reference(self, chosen: Float[np.ndarray, "N"], rejected: Float[np.ndarray, "N"]) -> "PreferenceExamples":
        """The same pairs with the log-probabilities of a reference model; ValueError when their number differs."""
        if len(chosen) != len(self.pairs):
            raise ValueError(
                f"the reference's log-probabilities of {len(chosen)} pairs do not fit {len(self.pairs)} pairs; "
                "run the stage reference again"
            )
        return replace(self, reference_chosen=chosen.astype(np.float32), reference_rejected=rejected.astype(np.float32))

    def sizes(self, epoch: int) -> Sizes:
        """Inputs of the longer conversation; one target a pair."""
        lengths = np.array([pair.length - 1 for pair in self.pairs], dtype=np.int64)
        return Sizes(lengths=lengths, num_targets={"loss": np.ones_like(lengths)})

    def collate(self, indices: Int[np.ndarray, "P"], epoch: int) -> PreferenceBatch:
        """The batch of some pairs, both sides right-padded to one length."""
        pairs = [self.pairs[i] for i in indices]
        length = max(pair.length for pair in pairs) - 1
        chosen, rejected = [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]
        return PreferenceBatch(
            chosen_ids=pad_ids([ids[:-1] for ids in chosen], self.pad_id, length=length),
            chosen_labels=pad_ids([ids[1:] for ids in chosen], self.pad_id, length=length),
            chosen_is_response=pad_mask([_is_response(pair.prompt, pair.chosen) for pair in pairs], length=length),
            rejected_ids=pad_ids([ids[:-1] for ids in rejected], self.pad_id, length=length),
            rejected_labels=pad_ids([ids[1:] for ids in rejected], self.pad_id, length=length),
            rejected_is_response=pad_mask([_is_response(pair.prompt, pair.rejected) for pair in pairs], length=length),
            reference_chosen=torch.from_numpy(self.reference_chosen[indices]),
            reference_rejected=torch.from_numpy(self.reference_rejected[indices]),
        )


@dataclass(frozen=True)
class RewardExamples:
    """Pairs for a reward model; the loss counts pairs."""

    pairs: tuple[EncodedPair, ...]
    pad_id: int

    def sizes(self, epoch: int) -> Sizes:
        """Tokens of the longer conversation, <eos> included; one target a pair."""
        lengths = np.array([pair.length for pair in self.pairs], dtype=np.int64)
        return Sizes(lengths=lengths, num_targets={"loss": np.ones_like(lengths)})

    def collate(self, indices: Int[np.ndarray, "P"], epoch: int) -> RewardBatch:
        """The batch of some pairs, both sides right-padded to one length."""
        pairs = [self.pairs[i] for i in indices]
        length = max(pair.length for pair in pairs)
        return RewardBatch(
            chosen_ids=pad_ids([pair.chosen for pair in pairs], self.pad_id, length=length),
            chosen_last=torch.tensor([len(pair.chosen) - 1 for pair in pairs]),
            rejected_ids=pad_ids([pair.rejected for pair in pairs], self.pad_id, length=length),
            rejected_last=torch.tensor([len(pair.rejected) - 1 for pair in pairs]),
        )


def encode_pairs(
    pairs: Sequence[PreferencePair], tokenizer: Tokenizer, *, max_length: int, too_long: TooLong
) -> tuple[tuple[EncodedPair, ...], PreferenceReport]:
    """Encodes pairs in at most `max_length` tokens a conversation; both responses follow the same, shortened prompt.

    Raises ValueError with the texts' ids when a response does not fit and `too_long` is "raise".
    """
    encoded, kept, num_shortened = [], [], 0
    for i, pair in enumerate(pairs):
        responses = [encode_response(text, tokenizer) for text in (pair.chosen, pair.rejected)]
        room = max_length - max(len(response) for response in responses)
        if room < SHORTEST_PROMPT:
            if too_long == "raise":
                raise ValueError(
                    f"pair {pair.chosen_id} / {pair.rejected_id}: a response does not fit into {max_length} tokens"
                )
            continue
        prompt = encode_prompt(pair.prompt, tokenizer, max_length=room)
        num_shortened += len(prompt) < len(encode_prompt(pair.prompt, tokenizer, max_length=_NO_LIMIT))
        kept.append(i)
        chosen, rejected = (np.concatenate([prompt, response]) for response in responses)
        encoded.append(EncodedPair(prompt=prompt, chosen=chosen, rejected=rejected))
    report = PreferenceReport(
        num_pairs=len(encoded), num_shortened=num_shortened, num_dropped=len(pairs) - len(encoded), kept=tuple(kept)
    )
    return tuple(encoded), report


def preference_examples(pairs: tuple[EncodedPair, ...], tokenizer: Tokenizer) -> PreferenceExamples:
    """Pairs whose reference log-probabilities are not known yet."""
    nothing = np.zeros(len(pairs), dtype=np.float32)
    return PreferenceExamples(pairs, reference_chosen=nothing, reference_rejected=nothing, pad_id=tokenizer.pad_id)


_NO_LIMIT = 1 << 40


def _is_response(prompt: Int[np.ndarray, "_"], ids: Int[np.ndarray, "_"]) -> np.ndarray:
    """Whether each label of a conversation belongs to its response."""
    return np.arange(1, len(ids)) >= len(prompt)
