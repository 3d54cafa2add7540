"""Batch types: the contract between data and models.

Legend: B batch (rows), T length in tokens, S source length, K classes, P pairs, N number of pairs of words,
R tokens that are read.
Masks are boolean; True counts. `labels[b, t]` is the token that the output at position t predicts: it is already
shifted, so no objective shifts anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """Base of the batch types: moves all its tensors at once."""

    def to(self: B, device: torch.device) -> B:
        """The same batch with every tensor on `device`."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) for name, value in tensors.items() if torch.is_tensor(value)}
        return replace(self, **moved)


@dataclass(frozen=True)
class CausalBatch(Batch):
    """Windows of running text for causal language modelling, several documents packed into a row."""

    input_ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    is_target: Bool[Tensor, "B T"]
    """False at padding and where the label would belong to another document."""
    segment_ids: Int[Tensor, "B T"]
    """Number of the document within the row from 0, -1 at padding: tokens attend within their segment only."""
    position_ids: Int[Tensor, "B T"]
    """Positions, from 0 in each document."""


@dataclass(frozen=True)
class InstructionBatch(Batch):
    """Conversations, right-padded; the loss counts the tokens of the responses and their EOS."""

    input_ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    is_response: Bool[Tensor, "B T"]
    """True where the label is a response token or the EOS that ends a response."""


@dataclass(frozen=True)
class MaskedBatch(Batch):
    """Sentence pairs, and documents of one sentence, for BERT pretraining, right-padded."""

    input_ids: Int[Tensor, "B T"]
    token_type_ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    """The original tokens."""
    is_masked: Bool[Tensor, "B T"]
    """True at the positions chosen for prediction, whatever replaced them."""
    next_sentence_labels: Int[Tensor, "B"]
    """0 where the second segment follows the first, 1 where it comes from another document."""
    is_pair: Bool[Tensor, "B"]
    """False where a row has one segment only: nothing is to be said about a next sentence."""


@dataclass(frozen=True)
class SequenceBatch(Batch):
    """Texts or text pairs for classification and regression, right-padded."""

    input_ids: Int[Tensor, "B T"]
    token_type_ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]
    labels: Float[Tensor, "B"] | Int[Tensor, "B"]
    """Class numbers, or real values for regression."""


@dataclass(frozen=True)
class QuestionBatch(Batch):
    """Questions, each with a window of its passage, for extractive question answering, right-padded."""

    input_ids: Int[Tensor, "B T"]
    """[CLS] question [SEP] window [SEP]."""
    token_type_ids: Int[Tensor, "B T"]
    """0 up to the first [SEP], 1 behind it."""
    attention_mask: Bool[Tensor, "B T"]
    starts: Int[Tensor, "B"]
    """Position of the first token of the answer; 0, [CLS], where the window does not hold the whole answer."""
    ends: Int[Tensor, "B"]
    """Position of its last token; 0 as well."""
    may_begin: Bool[Tensor, "B T"]
    """True where a predicted answer may begin: tokens of the passage of which no window shows more context."""
    may_end: Bool[Tensor, "B T"]
    """True where it may end: all tokens of the passage."""


@dataclass(frozen=True)
class TaggingBatch(Batch):
    """Words in pieces, right-padded; a word is asked for at its first piece."""

    input_ids: Int[Tensor, "B T"]
    token_type_ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    """Number of the word's tag where `is_target`; 0 elsewhere."""
    is_target: Bool[Tensor, "B T"]
    """True at the first piece of each word asked for: not at its other pieces, at special tokens and at context."""


@dataclass(frozen=True)
class TranslationBatch(Batch):
    """Sentence pairs, right-padded; the target is shifted: `tgt` starts with BOS, `labels` ends with EOS."""

    src: Int[Tensor, "B S"]
    src_mask: Bool[Tensor, "B S"]
    tgt: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    is_target: Bool[Tensor, "B T"]


@dataclass(frozen=True)
class PreferenceBatch(Batch):
    """Chosen and rejected answers to the same prompt, right-padded to a common length."""

    chosen_ids: Int[Tensor, "P T"]
    chosen_labels: Int[Tensor, "P T"]
    chosen_is_response: Bool[Tensor, "P T"]
    rejected_ids: Int[Tensor, "P T"]
    rejected_labels: Int[Tensor, "P T"]
    rejected_is_response: Bool[Tensor, "P T"]
    reference_chosen: Float[Tensor, "P"]
    """Sum of the reference model's log-probabilities of the chosen response; 0 where no reference is used."""
    reference_rejected: Float[Tensor, "P"]


@dataclass(frozen=True)
class RewardBatch(Batch):
    """Full conversations of a chosen and a rejected answer for Bradley-Terry, right-padded."""

    chosen_ids: Int[Tensor, "P T"]
    chosen_last: Int[Tensor, "P"]
    """Position of the true last token, at which the reward is read."""
    rejected_ids: Int[Tensor, "P T"]
    rejected_last: Int[Tensor, "P"]


@dataclass(frozen=True)
class RolloutBatch(Batch):
    """Sampled responses with everything that a PPO update needs; `labels[b, t]` is the action taken at t."""

    input_ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    is_response: Bool[Tensor, "B T"]
    segment_ids: Int[Tensor, "B T"]
    position_ids: Int[Tensor, "B T"]
    old_log_probs: Float[Tensor, "B T"]
    old_values: Float[Tensor, "B T"]
    advantages: Float[Tensor, "B T"]
    returns: Float[Tensor, "B T"]


@dataclass(frozen=True)
class Sizes:
    """Length and target counts of every example in one epoch: what the plan needs to cut steps."""

    lengths: Int[np.ndarray, "N"]
    """Padded cost of an example in tokens (for translation the longer side)."""
    num_targets: Mapping[str, Int[np.ndarray, "N"]]
    """Counted targets of each example, one array for each loss term's name."""
    skew: Int[np.ndarray, "N"] | None = None
    """By how much the first side of examples that have two is longer than the second; none where they have one."""


B_co = TypeVar("B_co", bound=Batch, covariant=True)


@runtime_checkable
class Examples(Protocol[B_co]):
    """A data set that the plan can cut into optimizer steps. Everything is a function of (seed, epoch, index)."""

    def sizes(self, epoch: int) -> Sizes:
        """Length and target counts of all examples in `epoch`."""

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> B_co:
        """The padded batch of the examples `indices` in `epoch`."""


@runtime_checkable
class TokenExamples(Examples[B_co], Protocol[B_co]):
    """A data set whose batches hold tokens of a vocabulary, known beforehand."""

    def token_ids(self) -> Int[np.ndarray, "R"]:
        """Every token of all batches, padding too, once and in order."""


class MicroBatch(Generic[B]):
    """What a rank runs forward and backward at once: a part of one optimizer step.

    Not a dataclass: Lightning takes dataclasses apart when it converts inputs, and refuses frozen ones.
    """

    def __init__(
        self,
        *,
        batch: B,
        step_targets: Mapping[str, int],
        update: int,
        epoch: int,
        is_last: bool,
        indices: Int[np.ndarray, "B"],
    ) -> None:
        self.batch = batch
        self.step_targets = step_targets
        """Target counts of the whole optimizer step: all ranks, all micro-batches."""
        self.update = update
        """Number of optimizer steps before this one."""
        self.epoch = epoch
        self.is_last = is_last
        """True for the last micro-batch of its optimizer step."""
        self.indices = indices
        """Which examples these are, for messages."""
