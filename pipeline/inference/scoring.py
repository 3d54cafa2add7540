"""Answers that are given: how likely a policy makes their tokens, and what a reward model says of them.

Legend: N answers, T the longest prompt with its answer, M counted positions, V vocabulary. Masks are boolean; True
counts. A policy is the distribution that answers are sampled from: logits divided by the temperature, over the tokens
that an answer may have.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.data.batches import PreferenceBatch
from pipeline.models.gpt import GPT
from pipeline.models.heads import RewardModel
from pipeline.objectives.likelihood import response_log_probs
from pipeline.objectives.preference import PairLogProbs
from pipeline.progress import progress
from pipeline.text.tokenizer import Tokenizer

_BATCH = 64


@dataclass(frozen=True)
class Policy:
    """How logits become the distribution that is sampled from."""

    temperature: float
    suppressed: tuple[int, ...]
    """Tokens that no answer has."""

    @staticmethod
    def of(tokenizer: Tokenizer, *, temperature: float) -> "Policy":
        """Text and its <eos>: every other special token is suppressed."""
        return Policy(temperature, tuple(sorted(tokenizer.special_ids - {tokenizer.eos_id})))

    def logits(self, logits: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
        """The logits of the policy from those of the model."""
        never = torch.tensor(self.suppressed, dtype=torch.long, device=logits.device)
        return (logits / self.temperature).index_fill(1, never, -torch.inf)


@dataclass(frozen=True)
class Answered:
    """Prompts with their answers, right-padded."""

    ids: Int[Tensor, "N T"]
    is_answer: Bool[Tensor, "N T"]
    """True at the tokens of the answer, <eos> included where there is one."""
    last: Int[Tensor, "N"]
    """Position of the last token, at which a reward is read."""


def join(
    prompts: Sequence[Int[np.ndarray, "_"]], answers: Sequence[Sequence[int]], *, pad: int, width: int = 0
) -> Answered:
    """Each prompt with its answer behind it, at least `width` columns wide."""
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    ids = torch.full((len(prompts), max(width, *lengths)), pad)
    is_answer = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt)] = torch.from_numpy(prompt)
        ids[row, len(prompt) : lengths[row]] = torch.tensor(answer)
        is_answer[row, len(prompt) : lengths[row]] = True
    return Answered(ids, is_answer, torch.tensor(lengths) - 1)


@torch.no_grad()
def score_answers(
    model: RewardModel, prompts: Sequence[Int[np.ndarray, "_"]], answers: Sequence[Sequence[int]], *, pad: int
) -> Float[np.ndarray, "N"]:
    """The reward of each answer, read at its true last token."""
    device = next(model.parameters()).device
    rewards: list[float] = []
    for part in _parts(prompts, answers, pad):
        rewards += model(part.ids.to(device), part.last.to(device)).double().tolist()
    return np.array(rewards)


@torch.no_grad()
def answer_log_probs(
    model: GPT, policy: Policy, prompts: Sequence[Int[np.ndarray, "_"]], answers: Sequence[Sequence[int]], *, pad: int
) -> Float[np.ndarray, "N"]:
    """log p(answer | prompt), a sum over the answer's tokens."""
    device = next(model.parameters()).device
    sums: list[float] = []
    for part in _parts(prompts, answers, pad):
        ids, counted = part.ids.to(device), part.is_answer[:, 1:].to(device)
        logits = policy.logits(model.logits(model(ids[:, :-1])[counted]))
        sums += response_log_probs(logits, ids[:, 1:][counted], counted).double().tolist()
    return np.array(sums)


def pair_log_probs(model: GPT, batch: PreferenceBatch) -> PairLogProbs:
    """log p(response | prompt) of both answers: sums over the tokens of the response and its EOS; differentiable.

    In float32 under every runtime: of a policy and its reference only small differences count, and rounding hides them.
    """
    sides = (
        (batch.chosen_ids, batch.chosen_labels, batch.chosen_is_response),
        (batch.rejected_ids, batch.rejected_labels, batch.rejected_is_response),
    )
    sums = []
    for ids, labels, counted in sides:
        with torch.autocast(ids.device.type, enabled=False):
            logits = model.logits(model(ids)[counted])
        sums.append(response_log_probs(logits, labels[counted], counted))
    return PairLogProbs(*sums)


def _parts(prompts: Sequence[Int[np.ndarray, "_"]], answers: Sequence[Sequence[int]], pad: int) -> Iterator[Answered]:
    batches = range(0, len(prompts), _BATCH)
    for begin in progress(batches, name="scoring", unit=f"batches of {_BATCH} answers", total=len(batches)):
        yield join(prompts[begin : begin + _BATCH], answers[begin : begin + _BATCH], pad=pad)
