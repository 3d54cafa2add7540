"""Sums that become reported numbers: collected over micro-batches and ranks, divided once at the end."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.objectives.terms import LossTerms


class Sums:
    """Running double-precision sums of loss terms and of what they report."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], Tensor] = {}
        self._num_targets: dict[str, int] = {}
        self._weights: dict[str, float] = {}

    def add(self, term: LossTerms, *, counts: bool = True) -> None:
        """Adds one term; with `counts` false it is named but adds nothing, so that all ranks hold the same names."""
        self._weights[term.name] = term.weight
        self._num_targets[term.name] = self._num_targets.get(term.name, 0) + term.num_targets * counts
        for report, value in (("", term.loss_sum), *term.report.items()):
            total = self._values.setdefault((term.name, report), torch.zeros((), dtype=torch.float64))
            total += value.detach().double().cpu() * counts

    def reduce(self, targets: Mapping[str, int] | None, device: torch.device) -> dict[str, float]:
        """Divides the sums of all ranks by their counts, and empties them. A collective operation.

        The counts are `targets` where the step's plan knows them, else the sum of what the terms counted. Keys are
        the term's name for its loss, `name/report` for what is reported with it, and `total` for the weighted loss.
        """
        keys, names = sorted(self._values), sorted(self._num_targets)
        local = [self._values[key] for key in keys]
        local += [torch.tensor(float(self._num_targets[name]), dtype=torch.float64) for name in names]
        values = _sum_over_ranks(local, device)
        counted = dict(zip(names, values[len(keys) :], strict=True)) if targets is None else targets
        result = {
            f"{name}/{report}" if report else name: value / max(1.0, counted[name])
            for (name, report), value in zip(keys, values[: len(keys)], strict=True)
        }
        result["total"] = sum(weight * result[name] for name, weight in sorted(self._weights.items()))
        self._values.clear()
        self._num_targets.clear()
        return result


def _sum_over_ranks(values: list[Tensor], device: torch.device) -> list[float]:
    stacked = torch.stack(values).to(device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(stacked)
    return [float(value) for value in stacked.cpu()]
