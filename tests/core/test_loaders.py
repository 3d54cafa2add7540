"""Loaders: together the ranks see each step once, from any step on, with and without a thread that works ahead."""

from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.config import ByExamples, ByTokens, Epochs, Steps
from pipeline.data.batches import MicroBatch
from pipeline.data.loaders import Cut, TrainingLoader, check_cut, validation_batches
from pipeline.data.plan import Phase, Step, TrainingPlan
from tests.core.examples import Numbers, Rows

BATCHING = ByExamples(kind="examples", examples_per_step=8)


def make_plan() -> TrainingPlan[Rows]:
    return TrainingPlan(Numbers(list(range(1, 62))), BATCHING, Epochs(kind="epochs", num_epochs=2), seed=4)


def load(world_size: int, accumulation: int, *, start: int = 0, prefetch: int = 0) -> Iterator[list[MicroBatch[Rows]]]:
    """The micro-batches of each rank."""
    for rank in range(world_size):
        place = Cut(rank, world_size, accumulation)
        yield list(TrainingLoader(make_plan(), place, start=start, prefetch=prefetch))


def facts(micro: MicroBatch[Rows]) -> tuple[object, ...]:
    values = (micro.batch.index.tolist(), micro.batch.value.tolist(), micro.indices.tolist())
    return (*values, dict(micro.step_targets), micro.update, micro.epoch, micro.is_last)


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (1, 3), (2, 1), (2, 2), (4, 1)])
def test_the_ranks_together_see_each_step_once_with_its_targets(world_size: int, accumulation: int) -> None:
    ranks = list(load(world_size, accumulation))
    for update, (epoch, step) in enumerate(make_plan().steps(0)):
        parts = [micro for rank in ranks for micro in rank if micro.update == update]
        assert len(parts) == world_size * accumulation
        assert sorted(i for micro in parts for i in micro.indices.tolist()) == sorted(step.indices.tolist())
        assert all(micro.step_targets == step.targets and micro.epoch == epoch for micro in parts)
        assert all(micro.batch.value.tolist() == (micro.indices + 1000 * epoch).tolist() for micro in parts)
    for rank in ranks:
        assert [micro.is_last for micro in rank] == ([False] * (accumulation - 1) + [True]) * (
            len(rank) // accumulation
        )


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 2), (1, 4), (2, 2), (3, 4)])
def test_a_group_is_cut_over_the_ranks_whose_parts_have_like_lengths(world_size: int, accumulation: int) -> None:
    """Two groups of ten examples of one length each: no micro-batch mixes them, and all ranks are in the same one."""
    batching = ByTokens(kind="tokens", tokens_per_step=400, groups_per_step=2)
    plan = TrainingPlan(Numbers([10] * 60 + [20] * 60), batching, Epochs(kind="epochs", num_epochs=1), seed=4)
    ranks = [
        list(TrainingLoader(plan, Cut(r, world_size, accumulation), start=0, prefetch=0)) for r in range(world_size)
    ]
    for update, (_, step) in enumerate(plan.steps(0)):
        mine = [[micro for micro in rank if micro.update == update] for rank in ranks]
        assert sorted(i for rank in mine for micro in rank for i in micro.indices) == sorted(step.indices.tolist())
        for together in zip(*mine, strict=True):
            assert len({i < 60 for micro in together for i in micro.indices.tolist()}) == 1


@pytest.mark.parametrize("prefetch", [1, 3, 1000])
def test_working_ahead_changes_nothing(prefetch: int) -> None:
    [plainly], [ahead] = load(1, 2), load(1, 2, prefetch=prefetch)
    assert [facts(micro) for micro in ahead] == [facts(micro) for micro in plainly]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_from_any_start_the_rest_is_the_same_down_to_nothing(prefetch: int) -> None:
    [whole] = load(1, 2)
    num_steps = make_plan().num_steps
    for start in (0, 1, 7, 8, 9, num_steps - 1, num_steps):
        [rest] = load(1, 2, start=start, prefetch=prefetch)
        assert [facts(micro) for micro in rest] == [facts(micro) for micro in whole[2 * start :]]
        loader = TrainingLoader(make_plan(), Cut(0, 1, 2), start=start, prefetch=prefetch)
        assert len(loader) == len(rest) == 2 * (num_steps - start)


def test_a_fault_in_the_thread_that_works_ahead_reaches_the_training() -> None:
    class Faulty(Numbers):
        def collate(self, indices: object, epoch: int) -> Rows:
            raise ValueError("line 7 is damaged")

    plan = TrainingPlan(Faulty([1] * 20), BATCHING, Epochs(kind="epochs", num_epochs=1), seed=0)
    with pytest.raises(ValueError, match="line 7 is damaged"):
        list(TrainingLoader(plan, Cut(0, 1, 1), start=0, prefetch=2))


def test_a_step_with_fewer_examples_than_parts_is_refused() -> None:
    [(_, step), *_] = make_plan().steps(0)
    with pytest.raises(ValueError, match=r"8 example\(s\) cannot be cut into 3 rank\(s\) x 3 micro-batch\(es\)"):
        check_cut(step, Cut(0, 3, 3))
    # 10 examples would do for 4 parts, the group of one does not for its 2.
    with pytest.raises(ValueError, match=r"10 example\(s\) cannot be cut into 2 rank\(s\) x 2 micro-batch\(es\)"):
        check_cut(Step(np.arange(10), {}, (9,)), Cut(0, 2, 2))


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (3, 2), (8, 1)])
def test_validation_sees_each_example_once_and_every_rank_as_many_batches(world_size: int, accumulation: int) -> None:
    examples = Numbers([3] * 21)
    batching = ByTokens(kind="tokens", tokens_per_step=24)
    ranks = [
        list(validation_batches(examples, batching, Cut(rank, world_size, accumulation))) for rank in range(world_size)
    ]
    assert len({len(rank) for rank in ranks}) == 1
    counted = [i for rank in ranks for item in rank if item.counts for i in item.batch.index.tolist()]
    assert sorted(counted) == list(range(21))
    assert all(len(item.batch.index) > 0 for rank in ranks for item in rank)
    # 21 examples make steps of 8, 8 and 5: more parts than 5 leave some without an example.
    assert all(item.counts for rank in ranks for item in rank) == (world_size * accumulation <= 5)


def test_each_step_is_collated_from_the_data_set_of_its_phase() -> None:
    class Shifted(Numbers):
        def collate(self, indices: np.ndarray, epoch: int) -> Rows:
            found = super().collate(indices, epoch)
            return Rows(found.index, found.value + 1_000_000)

    duration = Steps(kind="steps", num_steps=9)
    plan = TrainingPlan(Numbers([1] * 16), BATCHING, duration, seed=0, later=(Phase(5, Shifted([2] * 40)),))
    loaded = list(TrainingLoader(plan, Cut(0, 1, 2), start=3, prefetch=2))
    assert [micro.update for micro in loaded] == [3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]
    assert [bool((micro.batch.value >= 1_000_000).all()) for micro in loaded] == [False] * 4 + [True] * 8
