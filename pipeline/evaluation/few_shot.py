"""What a language model knows without being trained for it: it chooses among, or completes, continuations of a prompt.

Legend: B rows, T length in tokens, D model size, V vocabulary, N counted positions. A prompt holds the k solved
examples and the question, as tokens; the caller puts the model in evaluation mode.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.progress import progress

Tokens = Sequence[int]


@runtime_checkable
class CausalModel(Protocol):
    """What the evaluation asks of a model: hidden states of right-padded rows, and their projection."""

    def __call__(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Hidden states; position t has seen tokens up to t."""

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Scores of the token after each position."""


@dataclass(frozen=True)
class Choice:
    """A question with several possible answers."""

    prompt: Tokens
    candidates: Sequence[Tokens]
    answer: int
    """Number of the right candidate."""


@dataclass(frozen=True)
class Completion:
    """How likely a model finds a given continuation of a prompt."""

    log_prob: float
    """Sum over its tokens."""
    num_tokens: int


@dataclass(frozen=True)
class FewShotScore:
    """Share of right answers beside that of guessing."""

    accuracy: float
    chance: float


def completions(
    model: CausalModel,
    pairs: Sequence[tuple[Tokens, Tokens]],
    *,
    pad: int,
    batch_size: int,
    device: torch.device,
) -> list[Completion]:
    """For each (prompt, continuation), in their order; ValueError names one without a token on either side."""
    for number, (prompt, continuation) in enumerate(pairs):
        if not prompt or not continuation:
            raise ValueError(f"pair {number}: a prompt and a continuation have at least one token each")
    by_length = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    results: dict[int, Completion] = {}
    batches = [by_length[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    for numbers in progress(batches, name="completions", unit="rows", total=len(pairs), size=len):
        found = _batch(model, [pairs[i] for i in numbers], pad=pad, device=device)
        results.update(zip(numbers, found, strict=True))
    return [results[i] for i in range(len(pairs))]


def few_shot_score(
    model: CausalModel, choices: Sequence[Choice], *, pad: int, batch_size: int, device: torch.device
) -> FewShotScore:
    """Answers with the candidate of the largest log-probability per token (Brown et al. 2020, section 2.4)."""
    if not choices:
        raise ValueError("no questions to score")
    pairs = [(choice.prompt, candidate) for choice in choices for candidate in choice.candidates]
    likely = iter(completions(model, pairs, pad=pad, batch_size=batch_size, device=device))
    num_right = 0
    for choice in choices:
        own = itertools.islice(likely, len(choice.candidates))
        means = [completion.log_prob / completion.num_tokens for completion in own]
        num_right += means.index(max(means)) == choice.answer
    chance = sum(1.0 / len(choice.candidates) for choice in choices)
    return FewShotScore(accuracy=num_right / len(choices), chance=chance / len(choices))


@torch.no_grad()
def _batch(
    model: CausalModel, pairs: Sequence[tuple[Tokens, Tokens]], *, pad: int, device: torch.device
) -> list[Completion]:
    """The completions of a few pairs of similar length; only the positions that predict continuations are projected."""
    rows = [[*prompt, *continuation] for prompt, continuation in pairs]
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
    counted = torch.zeros_like(tokens, dtype=torch.bool)  # the token here belongs to the continuation
    for row, (prompt, continuation) in enumerate(pairs):
        counted[row, len(prompt) : len(prompt) + len(continuation)] = True
    hidden = model(tokens[:, :-1])
    log_probs = model.logits(hidden[counted[:, 1:]]).float().log_softmax(-1)
    labels = tokens[counted]
    picked = log_probs.gather(1, labels[:, None]).squeeze(1)
    lengths = [len(continuation) for _, continuation in pairs]
    return [
        Completion(log_prob=float(values.double().sum()), num_tokens=length)
        for values, length in zip(torch.split(picked, lengths), lengths, strict=True)
    ]
