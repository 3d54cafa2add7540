"""The plan of a training: which examples make which optimizer step, and how a step is cut into parts.

A step is a function of (seed, epoch) alone. Hardware decides only how it is cut: into ranks x micro-batches whose
sums add up to the step's, so the gradient does not depend on the cut. The count of targets of every step is known
before its first backward pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Int

from pipeline.config import ByExamples, ByTokens, Epochs, Steps
from pipeline.data.batches import Batch, Examples, Sizes

B = TypeVar("B", bound=Batch)

_STEPS_PER_POOL = 64
"""Examples are sorted by length within pools of this many steps: little padding, and still a random order."""


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    indices: Int[np.ndarray, "N"]
    """Its examples, group by group, in each from the shortest to the longest."""
    targets: Mapping[str, int]
    """Counted targets of the step by the loss term's name."""
    ends: tuple[int, ...] = ()
    """Where in `indices` a group ends and the next begins."""

    @property
    def groups(self) -> list[Int[np.ndarray, "_"]]:
        """The examples of each group of similar length."""
        return np.split(self.indices, self.ends)


def plan_epoch(sizes: Sizes, batching: ByExamples | ByTokens, *, seed: int, epoch: int) -> tuple[Step, ...]:
    """All steps of one epoch: every example once, similar lengths together, the steps in random order.

    Raises ValueError for a data set without examples, or with too few for its groups, and for an example that is
    longer than a group may be.
    """
    if len(sizes.lengths) == 0:
        raise ValueError("no examples; at least one is needed")
    random = np.random.default_rng((seed, epoch))
    match batching:
        case ByExamples():
            groups = _by_examples(sizes, batching.examples_per_step, random)
        case ByTokens():
            groups = _by_tokens(sizes, batching, random)
    shuffled = [groups[i] for i in random.permutation(len(groups))]
    size = batching.groups_per_step
    return tuple(_step(shuffled[i : i + size], sizes) for i in range(0, len(shuffled), size))


def cut(step: Step, parts: int) -> list[Int[np.ndarray, "_"]]:
    """Cuts each group of a step into contiguous parts of equal counts (up to one), each of similar lengths.

    A group with fewer examples than parts leaves its last parts empty. Raises ValueError where groups would be joined.
    """
    groups = step.groups
    if parts % len(groups):
        raise ValueError(f"{parts} part(s) of a step with {len(groups)} groups: a multiple of the groups is needed")
    return [part for group in groups for part in np.array_split(group, parts // len(groups))]


@dataclass(frozen=True)
class Phase(Generic[B]):
    """A data set that takes over in the middle of a training."""

    begin: int
    """Optimizer steps before it."""
    examples: Examples[B]


def examples_at(first: Examples[B], later: Sequence[Phase[B]], update: int) -> Examples[B]:
    """The data set of the optimizer step number `update`: `first`, or the one of `later` that took over last."""
    return next((phase.examples for phase in reversed(later) if phase.begin <= update), first)


@dataclass(frozen=True)
class TrainingPlan(Generic[B]):
    """All optimizer steps of a training."""

    examples: Examples[B]
    batching: ByExamples | ByTokens
    duration: Steps | Epochs
    seed: int
    later: tuple[Phase[B], ...] = ()
    """Data sets that take over from `examples`, in the order of their beginnings, which a training in steps alone has.
    The first step of each begins an epoch, and epochs are numbered through."""

    def examples_at(self, update: int) -> Examples[B]:
        """The data set of the optimizer step number `update`."""
        return examples_at(self.examples, self.later, update)

    def epoch(self, epoch: int, *, update: int = 0) -> tuple[Step, ...]:
        """The steps of one epoch of the data set of the optimizer step number `update`."""
        sizes = self.examples_at(update).sizes(epoch)
        return plan_epoch(sizes, self.batching, seed=self.seed, epoch=epoch)

    @cached_property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training."""
        match self.duration:
            case Steps():
                return self.duration.num_steps
            case Epochs():
                return sum(len(self.epoch(epoch)) for epoch in range(self.duration.num_epochs))

    def steps(self, start: int) -> Iterator[tuple[int, Step]]:
        """(epoch, step) from the optimizer step number `start` to the end of the training."""
        done = 0
        for epoch in count():
            end = min([phase.begin for phase in self.later if phase.begin > done], default=self.num_steps)
            steps = self.epoch(epoch, update=done)[: end - done]
            for step in steps[max(0, start - done) :]:
                if start >= self.num_steps:
                    return
                yield epoch, step
                start += 1
            done += len(steps)
            if done >= self.num_steps:
                return


def one_pass(sizes: Sizes, *, tokens_per_batch: int) -> tuple[Step, ...]:
    """All examples once, those of like length together; a batch is as large as the longest example where it has to."""
    batching = ByTokens(kind="tokens", tokens_per_step=max(tokens_per_batch, int(sizes.lengths.max(initial=1))))
    return plan_epoch(sizes, batching, seed=0, epoch=0)


def padding_share(steps: tuple[Step, ...], sizes: Sizes) -> float:
    """Share of padding among the tokens of the steps, were each group computed at once."""
    lengths = [sizes.lengths[group] for step in steps for group in step.groups]
    padded = sum(len(group) * int(group.max()) for group in lengths)
    return 1.0 - sum(int(group.sum()) for group in lengths) / padded


def _step(groups: list[Int[np.ndarray, "_"]], sizes: Sizes) -> Step:
    indices = np.concatenate([_ascending(group, sizes) for group in groups], dtype=np.int64)
    targets = {name: int(counts[indices].sum()) for name, counts in sizes.num_targets.items()}
    return Step(indices, targets, tuple(accumulate(len(group) for group in groups[:-1])))


def _shuffled(number: int, random: np.random.Generator) -> Int[np.ndarray, "N"]:
    """All examples in random order, in half the bytes where their numbers allow it: a corpus has millions of them."""
    return random.permutation(np.arange(number, dtype=np.int32 if number <= np.iinfo(np.int32).max else np.int64))


def _ascending(indices: Int[np.ndarray, "M"], sizes: Sizes) -> Int[np.ndarray, "M"]:
    """By length, and those of one length by the difference of their sides, so that neither side is padded much.

    What is equal stays in its order, a random one.
    """
    keys = [sizes.lengths[indices]] if sizes.skew is None else [sizes.skew[indices], sizes.lengths[indices]]
    ordered: np.ndarray = indices[np.lexsort(keys)]
    return ordered


def _by_examples(sizes: Sizes, examples_per_step: int, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
    order = _shuffled(len(sizes.lengths), random)
    groups = []
    pool_size = examples_per_step * _STEPS_PER_POOL
    for begin in range(0, len(order), pool_size):
        pool = _ascending(order[begin : begin + pool_size], sizes)
        groups += [pool[i : i + examples_per_step] for i in range(0, len(pool), examples_per_step)]
    return _balance_the_end(groups, most=examples_per_step)


def _by_tokens(sizes: Sizes, batching: ByTokens, random: np.random.Generator) -> list[Int[np.ndarray, "_"]]:
    lengths = sizes.lengths
    longest = int(lengths.max())
    most = batching.tokens_per_step // batching.groups_per_step
    if longest > most:
        holder = "a step" if batching.groups_per_step == 1 else f"each of its {batching.groups_per_step} groups"
        raise ValueError(
            f"batching.tokens_per_step: example {int(lengths.argmax())} has {longest} tokens, "
            f"{holder} holds at most {most}"
        )
    order = _ascending(_shuffled(len(lengths), random), sizes)
    groups, begin = [], 0
    for end, length in enumerate(lengths[order].tolist()):
        if (end - begin + 1) * length > most:
            groups.append(order[begin:end])
            begin = end
    groups.append(order[begin:])
    return _fill_up(_balance_the_end(groups, most=most // longest), batching.groups_per_step)


def _fill_up(groups: list[Int[np.ndarray, "_"]], size: int) -> list[Int[np.ndarray, "_"]]:
    """Halves the groups of most examples until their number is a multiple of `size`: every step has that many."""
    while len(groups) % size:
        largest = max(range(len(groups)), key=lambda i: len(groups[i]))
        if len(groups[largest]) == 1:
            raise ValueError(
                f"batching.groups_per_step: {len(groups)} example(s), each a group of its own, make no steps of {size} "
                "groups; make tokens_per_step larger, or groups_per_step smaller"
            )
        groups[largest : largest + 1] = np.array_split(groups[largest], 2)
    return groups


def _balance_the_end(groups: list[Int[np.ndarray, "_"]], *, most: int) -> list[Int[np.ndarray, "_"]]:
    """Fills a small last group from the one before it, up to half of both and at most `most` examples.

    So no step is the remnant of a few examples, as far as the budget allows.
    """
    if len(groups) < 2:
        return groups
    *whole, first, second = groups
    size = min((len(first) + len(second)) // 2, most)
    if len(second) * 2 >= len(first) or size <= len(second):
        return groups
    both = np.concatenate((first, second))
    return [*whole, both[:-size], both[-size:]]
