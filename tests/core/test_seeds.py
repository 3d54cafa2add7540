"""Random numbers of the CUDA device of a process, on a machine that has none."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.seeds import random_state, restore_random_state


class Gpus:
    """Visible devices, each with a state of one number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, states: list[int], *, current: int) -> None:
        self.states = states
        self.current = current
        for name in ("current_device", "get_rng_state", "set_rng_state", "get_rng_state_all", "set_rng_state_all"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(self.states))

    def current_device(self) -> int:
        return self.current

    def get_rng_state(self) -> Tensor:
        return torch.tensor([self.states[self.current]], dtype=torch.uint8)

    def set_rng_state(self, state: Tensor) -> None:
        self.states[self.current] = int(state)

    def get_rng_state_all(self) -> list[Tensor]:
        return [torch.tensor([state], dtype=torch.uint8) for state in self.states]

    def set_rng_state_all(self, states: list[Tensor]) -> None:
        for i, state in enumerate(states):
            self.states[i] = int(state)


def written(state: dict[str, Any]) -> dict[str, Any]:
    """The state as it comes out of a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize(("states", "current"), [([9], 0), ([9, 9, 9], 2), ([9] * 8, 6)])
def test_the_device_of_a_process_continues_whatever_is_visible_beside_it(
    monkeypatch: pytest.MonkeyPatch, states: list[int], current: int
) -> None:
    Gpus(monkeypatch, [10, 11, 12, 13, 14, 15, 16, 17], current=6)
    saved = written(random_state())
    gpus = Gpus(monkeypatch, states, current=current)
    restore_random_state(saved)
    assert gpus.states == [16 if i == current else 9 for i in range(len(states))]


@pytest.mark.parametrize(
    ("saved", "current", "expected"), [([10, 11, 12], 1, [9, 11]), ([10], 1, [9, 10]), ([10], 0, [10, 9])]
)
def test_a_list_of_an_older_checkpoint_gives_the_state_of_the_same_device_or_its_only_one(
    monkeypatch: pytest.MonkeyPatch, saved: list[int], current: int, expected: list[int]
) -> None:
    gpus = Gpus(monkeypatch, [9, 9], current=current)
    restore_random_state(written(random_state() | {"cuda": states_of(saved)}))
    assert gpus.states == expected


def test_a_device_that_an_older_checkpoint_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(monkeypatch, [9, 9, 9], current=2)
    state = random_state() | {"cuda": states_of([10, 11])}
    with pytest.raises(ValueError, match=r"random numbers of 2 CUDA devices.* device 2.*CUDA_VISIBLE_DEVICES"):
        restore_random_state(state)


@pytest.mark.parametrize("state", [None, []])
def test_a_state_from_a_process_without_cuda_leaves_the_device_alone(
    monkeypatch: pytest.MonkeyPatch, state: object
) -> None:
    gpus = Gpus(monkeypatch, [9], current=0)
    restore_random_state(written(random_state() | {"cuda": state}))
    assert gpus.states == [9]


def test_a_process_without_cuda_saves_and_restores_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(monkeypatch, [], current=0)
    state = random_state()
    assert state["cuda"] is None
    restore_random_state(state | {"cuda": torch.tensor([1], dtype=torch.uint8)})


def states_of(numbers: list[int]) -> list[Tensor]:
    return [torch.tensor([number], dtype=torch.uint8) for number in numbers]
