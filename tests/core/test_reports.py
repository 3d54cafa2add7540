"""Sums and history: one division, and every bit of the curve kept."""

import math
import struct

import pytest
import torch
from torch import tensor

from pipeline.objectives.terms import LossTerms
from pipeline.training.frame import flat
from pipeline.training.history import History, Sums
from pipeline.training.run import curve_csv

CPU = torch.device("cpu")


def test_each_term_is_divided_by_its_own_count_and_the_total_is_weighted() -> None:
    """Tokens: (6 + 3) / (2 + 1) = 3, right: (1 + 1) / 3. Pairs: 8 / 2 = 4. Total: 3 + 0.5 * 4 = 5."""
    sums = Sums()
    sums.add(LossTerms(tensor(6.0), 2, name="tokens", report={"right": tensor(1)}))
    sums.add(LossTerms(tensor(3.0), 1, name="tokens", report={"right": tensor(1)}))
    sums.add(LossTerms(tensor(8.0), 2, name="pairs", weight=0.5))
    found = sums.reduce(None, CPU)
    assert found == pytest.approx({"tokens": 3.0, "tokens/right": 2 / 3, "pairs": 4.0, "total": 5.0})


def test_the_counts_of_the_plan_have_to_be_those_of_the_losses() -> None:
    sums = Sums()
    sums.add(LossTerms(tensor(6.0), 2))
    sums.add(LossTerms(tensor(6.0), 1))
    assert sums.reduce({"loss": 3}, CPU) == {"loss": 4.0, "total": 4.0}
    sums.add(LossTerms(tensor(6.0), 2))
    with pytest.raises(AssertionError, match=r"planned \{'loss': 12\}, counted by the losses \{'loss': 2.0\}"):
        sums.reduce({"loss": 12}, CPU)


def test_sums_start_anew_after_they_were_read() -> None:
    sums = Sums()
    for value in (4.0, 6.0):
        sums.add(LossTerms(tensor(value), 2))
        assert sums.reduce(None, CPU)["loss"] == value / 2


def test_a_batch_that_does_not_count_adds_its_names_alone_whatever_its_value() -> None:
    sums = Sums()
    sums.add(LossTerms(tensor(math.nan), 5, report={"right": tensor(3.0)}), counts=False)
    assert sums.reduce(None, CPU) == {"loss": 0.0, "loss/right": 0.0, "total": 0.0}
    sums.add(LossTerms(tensor(math.inf), 5, report={"right": tensor(3.0)}), counts=False)
    sums.add(LossTerms(tensor(6.0), 2, report={"right": tensor(1.0)}))
    assert sums.reduce(None, CPU) == {"loss": 3.0, "loss/right": 0.5, "total": 3.0}


def test_many_small_addends_are_not_lost() -> None:
    """In float32, 2^24 + 1 is 2^24."""
    sums = Sums()
    sums.add(LossTerms(tensor(2.0**24), 1))
    for _ in range(8):
        sums.add(LossTerms(tensor(1.0), 0))
    assert sums.reduce(None, CPU)["loss"] == 2.0**24 + 8


ROWS = [
    {"update": 1.0, "loss": 1 / 3},
    {"update": 2.0, "loss": -0.0, "valid": math.inf},
    {"update": 3.0, "valid": 5e-324},
    {"update": 4.0, "loss": 0.1 + 0.2, "lr": 1e-300},
]


def make_history() -> History:
    history = History()
    for row in ROWS:
        history.append({"update": row["update"]})
        history.add_to_last({key: 9.9 for key in row if key != "update"})
        history.add_to_last(row)
    return history


def test_a_history_gives_back_its_rows() -> None:
    history = make_history()
    assert list(history) == ROWS and len(history) == 4 and history
    assert history[-1] == ROWS[-1] and history[1] == ROWS[1] and history[1:3] == ROWS[1:3]
    assert not History() and list(History()) == []
    with pytest.raises(IndexError):
        history[4]


def test_a_history_survives_its_state_bit_by_bit_and_can_be_continued() -> None:
    history = History.of(make_history().state())
    assert [struct.pack("d", value) for row in history for value in row.values()] == [
        struct.pack("d", value) for row in make_history() for value in row.values()
    ]
    history.add_to_last({"valid": 1.0})
    history.append({"update": 5.0})
    assert history[-2:] == [ROWS[-1] | {"valid": 1.0}, {"update": 5.0}]


def test_the_state_of_a_history_takes_12_bytes_a_value() -> None:
    history = History()
    for step in range(1000):
        history.append({f"key {number}": float(step + number) for number in range(10)})
    columns = history.state()["columns"].values()
    assert sum(part.numel() * part.element_size() for column in columns for part in column) == 12 * 10_000


def test_a_curve_keeps_every_digit_and_leaves_what_was_not_measured_empty() -> None:
    assert curve_csv(make_history()) == (
        "update,loss,lr,valid\n"
        "1,0.3333333333333333,,\n"
        "2,-0.0,,inf\n"
        "3,,,5e-324\n"
        "4,0.30000000000000004,1e-300,\n"
    )  # fmt: skip


def test_nested_numbers_get_dotted_names_and_text_is_left_out() -> None:
    assert flat({"a": {"b": 1, "c": {"d": True}}, "e": 2.5, "signature": "x"}) == {"a.b": 1.0, "a.c.d": 1.0, "e": 2.5}
