import dataclasses

import numpy as np
import pytest
import torch

from pipeline.data.examples.rollouts import TERMS, RolloutBuffer, RolloutExamples


def buffer() -> RolloutBuffer:
    is_response = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]]).bool()
    numbers = torch.arange(15).reshape(3, 5)
    floats = [numbers * factor for factor in (0.1, 0.2, 0.3, 0.4)]
    return RolloutBuffer(numbers, numbers + 1, is_response, *floats)


def test_a_batch_is_as_wide_as_its_longest_rollout_and_counts_its_responses() -> None:
    examples = RolloutExamples(buffer())
    sizes = examples.sizes(0)
    assert sizes.lengths.tolist() == [3, 5, 1]
    assert {name: counts.tolist() for name, counts in sizes.num_targets.items()} == {name: [2, 3, 1] for name in TERMS}
    batch = examples.collate(np.array([2, 0]), 0)
    assert batch.input_ids.tolist() == [[10, 11, 12], [0, 1, 2]]
    assert batch.is_response.sum(1).tolist() == [1, 2]
    assert batch.segment_ids.tolist() == [[0, -1, -1], [0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 0, 0], [0, 1, 2]]


def test_a_rollout_does_not_depend_on_its_batch() -> None:
    examples = RolloutExamples(buffer())
    together = examples.collate(np.arange(3), 0)
    for i in range(3):
        alone = examples.collate(np.array([i]), 0)
        for field in dataclasses.fields(alone):
            one = getattr(alone, field.name)
            assert getattr(together, field.name)[i, : one.shape[1]].equal(one[0])


def test_the_buffer_comes_back_from_its_state() -> None:
    again = RolloutBuffer.from_state(buffer().state())
    assert all(again.state()[name].equal(values) for name, values in buffer().state().items())
    state = buffer().state()
    state["rewards"] = state.pop("returns")
    with pytest.raises(ValueError, match=r"missing \['returns'\], unknown \['rewards'\]"):
        RolloutBuffer.from_state(state)


def test_a_rollout_without_a_response_is_named() -> None:
    state = buffer().state()
    state["is_response"] = state["is_response"] & torch.tensor([[True], [False], [True]])
    with pytest.raises(ValueError, match=r"rollouts \[1\] have no response"):
        RolloutBuffer.from_state(state)
