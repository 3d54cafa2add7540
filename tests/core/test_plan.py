"""The plan: every example once an epoch, within its budget, as a function of seed and epoch alone."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config import ByExamples, ByTokens, Epochs, Steps
from pipeline.data.plan import Phase, Step, TrainingPlan, cut, padding_share, plan_epoch
from tests.core.examples import Numbers

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)
BATCHINGS = st.one_of(
    st.builds(ByTokens, kind=st.just("tokens"), tokens_per_step=st.integers(40, 300)),
    st.builds(ByExamples, kind=st.just("examples"), examples_per_step=st.integers(1, 12)),
)


def indices(steps: tuple[Step, ...]) -> list[list[int]]:
    return [step.indices.tolist() for step in steps]


@given(LENGTHS, BATCHINGS, st.integers(0, 3), st.integers(0, 3))
@example([1, 1, 1, 40], ByTokens(kind="tokens", tokens_per_step=40), 0, 0)
def test_an_epoch_has_every_example_once_in_steps_within_their_budget(
    lengths: list[int], batching: ByTokens | ByExamples, seed: int, epoch: int
) -> None:
    sizes = Numbers(lengths).sizes(epoch)
    steps = plan_epoch(sizes, batching, seed=seed, epoch=epoch)
    assert sorted(chain(*indices(steps))) == list(range(len(lengths)))
    for step in steps:
        widths = sizes.lengths[step.indices]
        assert len(widths) > 0
        assert widths.tolist() == sorted(widths.tolist()), "from the shortest to the longest"
        match batching:
            case ByTokens():
                assert len(widths) * widths.max() <= batching.tokens_per_step
            case ByExamples():
                assert len(widths) <= batching.examples_per_step
        assert step.targets == {"loss": int(sizes.num_targets["loss"][step.indices].sum())}


@given(st.lists(st.integers(1, 25), min_size=8, max_size=90), st.integers(2, 4), st.integers(0, 3))
@example([1, 1, 1, 40, 40, 40], 3, 0)
@example([7] * 9, 4, 0)
def test_every_step_has_its_groups_each_sorted_and_within_its_share(
    lengths: list[int], groups_per_step: int, seed: int
) -> None:
    sizes = Numbers(lengths).sizes(0)
    batching = ByTokens(kind="tokens", tokens_per_step=50 * groups_per_step + 1, groups_per_step=groups_per_step)
    steps = plan_epoch(sizes, batching, seed=seed, epoch=0)
    assert sorted(chain(*indices(steps))) == list(range(len(lengths)))
    for step in steps:
        assert len(step.groups) == groups_per_step
        assert np.concatenate(step.groups).tolist() == step.indices.tolist()
        for group in step.groups:
            widths = sizes.lengths[group]
            assert 0 < len(widths) * widths.max() <= 50
            assert widths.tolist() == sorted(widths.tolist())
        assert step.targets == {"loss": int(sizes.num_targets["loss"][step.indices].sum())}


def test_a_step_of_groups_mixes_lengths_where_a_step_in_one_piece_has_one() -> None:
    """1,000 examples of 10 tokens and 1,000 of 20, in random pairs of groups of 100 tokens."""
    sizes = Numbers([10, 20] * 1000).sizes(0)

    def share_mixed(groups_per_step: int) -> float:
        batching = ByTokens(kind="tokens", tokens_per_step=200, groups_per_step=groups_per_step)
        steps = plan_epoch(sizes, batching, seed=0, epoch=0)
        return float(np.mean([len(set(sizes.lengths[step.indices])) == 2 for step in steps]))

    assert share_mixed(1) == 0.0
    # Of 100 groups of short and 200 of long examples in random pairs 2 x 1/3 x 2/3 have both.
    assert share_mixed(2) == pytest.approx(4 / 9, abs=0.1)


@given(LENGTHS, BATCHINGS)
def test_the_plan_is_a_function_of_seed_and_epoch(lengths: list[int], batching: ByTokens | ByExamples) -> None:
    sizes = Numbers(lengths).sizes(0)
    plans = [indices(plan_epoch(sizes, batching, seed=5, epoch=2)) for _ in range(2)]
    assert plans[0] == plans[1]


def test_another_seed_or_epoch_gives_another_order_and_other_steps() -> None:
    sizes = Numbers(list(range(1, 101))).sizes(0)
    batching = ByExamples(kind="examples", examples_per_step=1)
    plans = [indices(plan_epoch(sizes, batching, seed=seed, epoch=epoch)) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert plans[0] != plans[1] and plans[0] != plans[2] and plans[1] != plans[2]


def test_the_last_step_is_no_remnant() -> None:
    sizes = Numbers([5] * 101).sizes(0)
    by_examples = plan_epoch(sizes, ByExamples(kind="examples", examples_per_step=10), seed=0, epoch=0)
    by_tokens = plan_epoch(sizes, ByTokens(kind="tokens", tokens_per_step=50), seed=0, epoch=0)
    for steps in (by_examples, by_tokens):
        assert sorted(len(step.indices) for step in steps) == [5, 6, *[10] * 9]


def test_examples_of_one_length_are_packed_without_padding_and_random_ones_with_little() -> None:
    equal = Numbers([7] * 50).sizes(0)
    assert padding_share(plan_epoch(equal, _tokens(70), seed=0, epoch=0), equal) == 0

    random = np.random.default_rng(0)
    sizes = Numbers(random.integers(5, 60, 4000).tolist()).sizes(0)
    assert padding_share(plan_epoch(sizes, _tokens(2000), seed=0, epoch=0), sizes) < 0.03
    assert padding_share(plan_epoch(sizes, _examples(32), seed=0, epoch=0), sizes) < 0.03


def test_padding_share_by_hand() -> None:
    """Rows of 2 and 4 are padded to 2 x 4, the row of 3 to 3: 11 tokens computed for 9, so 2/11 are padding."""
    sizes = Numbers([2, 4, 3]).sizes(0)
    steps = (Step(np.array([0, 1]), {}), Step(np.array([2]), {}))
    assert padding_share(steps, sizes) == pytest.approx(2 / 11)
    # In groups of their own the rows of 4 and of 2 and 3 are 4 + 2 x 3 tokens for 9.
    assert padding_share((Step(np.array([1, 0, 2]), {}, (1,)),), sizes) == pytest.approx(1 / 10)


def _tokens(number: int) -> ByTokens:
    return ByTokens(kind="tokens", tokens_per_step=number)


def _examples(number: int) -> ByExamples:
    return ByExamples(kind="examples", examples_per_step=number)


@given(st.integers(1, 30), st.integers(1, 9))
def test_a_cut_keeps_the_order_and_gives_parts_of_equal_size_up_to_one(num_examples: int, parts: int) -> None:
    step = Step(np.arange(num_examples), {})
    pieces = cut(step, parts)
    assert len(pieces) == parts
    assert np.concatenate(pieces).tolist() == list(range(num_examples))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_a_cut_cuts_each_group_on_its_own_and_joins_none() -> None:
    step = Step(np.arange(10), {}, (3, 4))
    assert [part.tolist() for part in cut(step, 3)] == [[0, 1, 2], [3], [4, 5, 6, 7, 8, 9]]
    assert [part.tolist() for part in cut(step, 6)] == [[0, 1], [2], [3], [], [4, 5, 6], [7, 8, 9]]
    with pytest.raises(ValueError, match=r"4 part\(s\) of a step with 3 groups"):
        cut(step, 4)


@pytest.mark.parametrize("duration", [Epochs(kind="epochs", num_epochs=3), Steps(kind="steps", num_steps=17)])
def test_from_any_start_the_remaining_steps_are_the_same(duration: Epochs | Steps) -> None:
    plan = TrainingPlan(Numbers(list(range(1, 61))), _examples(8), duration, seed=4)
    whole = [(epoch, step.indices.tolist(), step.targets) for epoch, step in plan.steps(0)]
    assert len(whole) == plan.num_steps == (3 * 8 if duration.kind == "epochs" else 17)
    for start in range(plan.num_steps + 1):
        rest = [(epoch, step.indices.tolist(), step.targets) for epoch, step in plan.steps(start)]
        assert rest == whole[start:]


def test_a_data_set_without_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="no examples; at least one is needed"):
        plan_epoch(Numbers([]).sizes(0), _examples(8), seed=0, epoch=0)


def test_an_example_that_fits_into_no_step_is_named() -> None:
    with pytest.raises(ValueError, match="tokens_per_step: example 2 has 90 tokens, a step holds at most 80"):
        plan_epoch(Numbers([5, 6, 90, 7]).sizes(0), _tokens(80), seed=0, epoch=0)
    grouped = ByTokens(kind="tokens", tokens_per_step=160, groups_per_step=2)
    with pytest.raises(ValueError, match="example 2 has 90 tokens, each of its 2 groups holds at most 80"):
        plan_epoch(Numbers([5, 6, 90, 7]).sizes(0), grouped, seed=0, epoch=0)


def test_fewer_examples_than_groups_are_refused() -> None:
    grouped = ByTokens(kind="tokens", tokens_per_step=160, groups_per_step=4)
    with pytest.raises(ValueError, match=r"3 example\(s\), each a group of its own, make no steps of 4 groups"):
        plan_epoch(Numbers([5, 6, 7]).sizes(0), grouped, seed=0, epoch=0)


def test_later_data_sets_take_over_at_their_step_with_a_new_epoch_and_every_start_gives_the_rest() -> None:
    """Epochs of 8, 4 and 2 steps: the second data set begins in the middle of epoch 1, the third of its epoch 3."""
    first, second, third = Numbers([5] * 64), Numbers([6] * 32), Numbers([7] * 16)
    later = (Phase(13, second), Phase(19, third))
    plan = TrainingPlan(first, _examples(8), Steps(kind="steps", num_steps=24), seed=4, later=later)
    whole = list(plan.steps(0))
    assert [epoch for epoch, _ in whole] == [0] * 8 + [1] * 5 + [2] * 4 + [3] * 2 + [4, 4, 5, 5, 6]
    for update, (epoch, step) in enumerate(whole):
        examples = first if update < 13 else second if update < 19 else third
        assert plan.examples_at(update) is examples
        assert step.targets == {"loss": 8 * (int(examples.lengths[0]) // 2 + epoch)}
    of_second = [step.indices.tolist() for epoch, step in whole if epoch == 2]
    assert sorted(chain(*of_second)) == list(range(32))
    for start in range(25):
        rest = [(epoch, step.indices.tolist()) for epoch, step in plan.steps(start)]
        assert rest == [(epoch, step.indices.tolist()) for epoch, step in whole[start:]]


def test_a_data_set_that_takes_over_after_the_end_never_does() -> None:
    first, never = Numbers([5] * 64), Numbers([6] * 32)
    duration = Steps(kind="steps", num_steps=10)
    plan = TrainingPlan(first, _examples(8), duration, seed=4, later=(Phase(10, never),))
    alone = TrainingPlan(first, _examples(8), duration, seed=4)
    assert indices(tuple(step for _, step in plan.steps(0))) == indices(tuple(step for _, step in alone.steps(0)))
