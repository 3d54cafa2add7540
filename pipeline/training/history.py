"""Reported numbers: sums over micro-batches and ranks that are divided once, and their history over the training."""

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.objectives.terms import LossTerms

OTHER_KEY = "continued_from_another_key"
"""Stands in the row of a history behind which another configuration, code or inputs took over."""


class Sums:
    """Running double-precision sums of loss terms and of what they report."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], Tensor] = {}
        self._num_targets: dict[str, int] = {}
        self._weights: dict[str, float] = {}

    def add(self, term: LossTerms, *, counts: bool = True) -> None:
        """Adds one term; with `counts` false it is named but adds nothing, so that all ranks hold the same names."""
        self._weights[term.name] = term.weight
        self._num_targets[term.name] = self._num_targets.get(term.name, 0) + (term.num_targets if counts else 0)
        for report, value in (("", term.loss_sum), *term.report.items()):
            addend = value.detach().double() if counts else torch.zeros((), dtype=torch.float64, device=value.device)
            known = self._values.get((term.name, report))
            self._values[term.name, report] = addend if known is None else known + addend

    def reduce(self, targets: Mapping[str, int] | None, device: torch.device) -> dict[str, float]:
        """Divides the sums of all ranks by their counts, and empties them. A collective operation.

        The counts are `targets` where the step's plan knows them, and then those of the terms have to be the same, else
        the sum of what the terms counted. Keys are the term's name for its loss, `name/report` for what is reported
        with it, and `total` for the weighted loss.
        """
        keys, names = sorted(self._values), sorted(self._num_targets)
        local = [self._values[key].to(device) for key in keys]
        local += [torch.tensor(float(self._num_targets[name]), dtype=torch.float64, device=device) for name in names]
        values = _sum_over_ranks(torch.stack(local))
        counted = dict(zip(names, values[len(keys) :], strict=True))
        if targets is not None:
            assert counted == targets, f"targets of a step: planned {dict(targets)}, counted by the losses {counted}"
        result = {
            f"{name}/{report}" if report else name: value / max(1.0, counted[name])
            for (name, report), value in zip(keys, values[: len(keys)], strict=True)
        }
        result["total"] = sum(weight * result[name] for name, weight in sorted(self._weights.items()))
        self._values.clear()
        self._num_targets.clear()
        return result


def _sum_over_ranks(values: Tensor) -> list[float]:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return [float(value) for value in values.cpu()]


class History(Sequence[dict[str, float]]):
    """One row of numbers for each optimizer step, in order; a row need not have every key.

    Kept as columns of machine numbers, 12 bytes a value: a training of 100 000 steps carries its curve in every
    checkpoint.
    """

    def __init__(self) -> None:
        self._length = 0
        self._columns: dict[str, tuple[array[int], array[float]]] = {}
        """For each key the numbers of the rows that have it, and its values there."""

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> dict[str, float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, float]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, float] | list[dict[str, float]]:
        numbers = range(self._length)[index]
        return self._row(numbers) if isinstance(numbers, int) else [self._row(number) for number in numbers]

    def _row(self, number: int) -> dict[str, float]:
        places = {key: bisect_left(rows, number) for key, (rows, _) in self._columns.items()}
        return {
            key: values[places[key]]
            for key, (rows, values) in self._columns.items()
            if places[key] < len(rows) and rows[places[key]] == number
        }

    def column(self, key: str) -> dict[int, float]:
        """The values of one key by their `update`; rows without the key are passed over, and cost nothing."""
        if key not in self._columns:
            return {}
        places, updates = self._columns["update"]
        return {
            int(updates[bisect_left(places, number)]): value for number, value in zip(*self._columns[key], strict=True)
        }

    def append(self, row: Mapping[str, float]) -> None:
        """Adds a row."""
        self._length += 1
        self.add_to_last(row)

    def add_to_last(self, row: Mapping[str, float]) -> None:
        """Adds values to the newest row, or changes them there."""
        for key, value in row.items():
            rows, values = self._columns.setdefault(key, (array("i"), array("d")))
            if rows and rows[-1] == self._length - 1:
                values[-1] = value
            else:
                rows.append(self._length - 1)
                values.append(value)

    def state(self) -> dict[str, Any]:
        """Everything as tensors, bit by bit."""
        columns = {
            key: (torch.from_numpy(np.array(rows)), torch.from_numpy(np.array(values)))
            for key, (rows, values) in self._columns.items()
        }
        return {"length": self._length, "columns": columns}

    @staticmethod
    def of(state: Mapping[str, Any]) -> "History":
        """The history that gave `state`."""
        history = History()
        history._length = state["length"]
        history._columns = {
            key: (array("i", rows.tolist()), array("d", values.tolist()))
            for key, (rows, values) in state["columns"].items()
        }
        return history
