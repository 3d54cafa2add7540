"""Which weights of a training become the model: the last, the best, or the mean of several; and when to stop early.

At every validation the weights go into a file beside the resume checkpoints, and those that can no longer be chosen,
neither by this training nor by one that continues from a checkpoint, are removed. What is chosen is a function of the
history, so a resumed training chooses the same.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from pydantic import NonNegativeInt, PositiveInt, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.artifacts import disk_faults, fsync
from pipeline.checkpoints import Checkpoint, CheckpointFolder
from pipeline.config import Config, TrainingConfig
from pipeline.runtime import RuntimeConfig, full_state
from pipeline.training.base import StageModule, refuse_non_finite
from pipeline.training.callbacks import StepCallback
from pipeline.training.history import History


class SelectionConfig(Config):
    """What becomes of the weights at each validation."""

    choose: Literal["last", "best"] = "last"
    """The last validations, or those with the best `metric`."""
    num_averaged: PositiveInt = 1
    """How many of them: the model is the mean of their weights (Vaswani et al. 2017, section 6.1)."""
    metric: Literal["loss", "bleu"] = "loss"
    """What is best: the lowest validation loss, or the highest BLEU of the validation set, searched greedily."""
    patience: NonNegativeInt = 0
    """Training ends after so many validations without a better `metric`; 0 never ends it early."""

    @model_validator(mode="after")
    def _goes_back(self) -> "SelectionConfig":
        if self.patience and self.is_end:
            raise ValueError(
                f"patience: {self.patience} hands on weights that are {self.patience} validations past the best; "
                "with it, set choose: best, or num_averaged to more than 1"
            )
        return self

    @property
    def is_end(self) -> bool:
        """Whether the model is what the training ends with, so that no weights need to be kept."""
        return self.choose == "last" and self.num_averaged == 1


@dataclass(frozen=True)
class Selection:
    """A configuration at work."""

    config: SelectionConfig
    bleu: Callable[[Mapping[str, Tensor], torch.device], float] | None
    """BLEU of the model with these weights on the validation set, found on a device by all ranks together; none where
    `metric` is not bleu."""

    def check(self, training: TrainingConfig, *, num_steps: int) -> None:
        """ValueError for a training with fewer validations than weights are asked for."""
        num_validations = math.ceil(num_steps / training.validate_every)
        if self.config.num_averaged > num_validations:
            raise ValueError(
                f"selection.num_averaged: {self.config.num_averaged}, but {num_steps} steps with validate_every "
                f"{training.validate_every} have {num_validations} validations; allowed is 1 to {num_validations}"
            )

    def values(self, history: History) -> dict[int, float]:
        """The metric of each validation so far by its optimizer step; higher is better."""
        if self.config.metric == "bleu":
            return history.column("valid/bleu")
        return {update: -value for update, value in history.column("valid/total").items()}

    def is_over(self, history: History) -> bool:
        """Whether the last validations were too many without a better one."""
        if not self.config.patience:
            return False
        values = list(self.values(history).values())
        if not values:
            return False
        return len(values) - 1 - values.index(max(values)) >= self.config.patience

    def chosen(self, history: History, *, until: float = math.inf) -> list[int]:
        """The optimizer steps whose weights are the model so far, or were after step `until`; of equal ones the earlier
        are better."""
        values = {update: value for update, value in self.values(history).items() if update <= until}
        updates = list(values)
        if self.config.choose == "best":
            updates.sort(key=lambda update: -values[update])
            return sorted(updates[: self.config.num_averaged])
        return updates[-self.config.num_averaged :]


class Weights:
    """The files with the weights of some optimizer steps, beside the checkpoints that refer to them."""

    def __init__(self, checkpoints: CheckpointFolder) -> None:
        self.folder = checkpoints.folder / "weights"
        self._checkpoints = checkpoints

    def save(self, update: int, state: Mapping[str, Tensor]) -> None:
        """Writes one file, or none; an existing one of a run that went further before it was killed is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self._file(update)
        partial = final.with_suffix(".partial")
        with disk_faults(partial):
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial)
            fsync(partial)
        partial.replace(final)
        fsync(self.folder)

    def take_over(self, found: Checkpoint, updates: list[int], *, is_main: bool) -> None:
        """Copies the weights of these steps, which the history of a checkpoint chooses, if it is of another key.

        ValueError names what is missing: a training that did not keep them cannot end with them.
        """
        for update in updates:
            source = found.folder.parent / self.folder.name / self._file(update).name
            if not source.is_file():
                raise ValueError(
                    f"{source}: missing, although these weights are among the chosen ones after step {found.update}; "
                    f"remove {found.folder.parent} to start again"
                )
            if found.is_foreign and is_main:
                self.folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, self._file(update))
                fsync(self._file(update))

    def keep(self, selection: Selection, history: History) -> None:
        """Removes the files of weights that neither this history chooses nor that of a checkpoint, which is the
        beginning of it."""
        ends = [math.inf, *map(float, self._checkpoints.updates())]
        kept = {self._file(update) for until in ends for update in selection.chosen(history, until=until)}
        for file in self.folder.glob("*"):
            if file not in kept:
                file.unlink()

    def mean(self, updates: list[int]) -> dict[str, Tensor]:
        """The mean of the weights of some steps, added up in double precision; whole numbers are of the last step."""
        total: dict[str, Tensor] = {}
        last: dict[str, Tensor] = {}
        for update in updates:
            last = load_file(self._file(update))
            for name, tensor in last.items():
                total[name] = total[name] + tensor.double() if name in total else tensor.double()
        return {
            name: (total[name] / len(updates)).to(tensor.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in last.items()
        }

    def _file(self, update: int) -> Path:
        return self.folder / f"update-{update:08d}.safetensors"


class Select(StepCallback):
    """Behind the validation of a step: its BLEU where asked, its weights into a file, and perhaps the end."""

    def __init__(self, selection: Selection, weights: Weights, runtime: RuntimeConfig) -> None:
        self.selection = selection
        self.weights = weights
        self.runtime = runtime

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """Every rank takes part in gathering the weights and in finding the score."""
        if "valid/total" not in module.history[-1]:
            return
        bleu, keeps_weights = self.selection.bleu, not self.selection.config.is_end
        if bleu or keeps_weights:
            state = full_state(self.runtime, module.model)
            if bleu:
                value = bleu(state, module.device)
                refuse_non_finite("bleu", value, update)
                module.history.add_to_last({"valid/bleu": value})
            if keeps_weights and trainer.is_global_zero:
                self.weights.save(update, state)
                self.weights.keep(self.selection, module.history)
        if self.selection.is_over(module.history):
            module.num_steps = update
            trainer.should_stop = True
