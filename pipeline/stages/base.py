"""The one training step that every stage shares.

A stage says what its loss is; here is what is the same for all: the division by the targets of the whole optimizer
step, the learning rate, the optimizer, the reports, and what a checkpoint has to carry beside the weights.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from pipeline.config import OptimizerConfig, TrainingConfig
from pipeline.data.batches import Batch, MicroBatch
from pipeline.data.loaders import ValidationBatch
from pipeline.objectives.terms import LossTerms
from pipeline.stages.reports import Sums
from pipeline.stages.schedule import learning_rate_factor

B = TypeVar("B", bound=Batch)


class StageModule(LightningModule, Generic[B]):
    """Owns the model; subclasses choose the objective."""

    def __init__(self, model: nn.Module, training: TrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.training_config = training
        self.num_steps = 0
        """Optimizer steps of the whole training; set before it starts."""
        self.loss_scale = 1.0
        """Undoes the divisions of the strategy (runtime.gradient_scale); set before training starts."""
        self.update = 0
        """Optimizer steps done, over all resumes."""
        self.history: list[dict[str, float]] = []
        """One row of reports for each optimizer step and for each validation, in order."""
        self._sums = Sums()

    @abstractmethod
    def objective(self, batch: B) -> tuple[LossTerms, ...]:
        """The losses of a micro-batch, as sums."""

    def training_step(self, micro: MicroBatch[B], batch_idx: int) -> Tensor:
        """The part of the step's loss that this micro-batch contributes (requirement: one place divides)."""
        terms = self.objective(micro.batch)
        loss = torch.zeros((), device=self.device)
        for term in terms:
            # A term without targets in the whole step contributes zero, and stays connected to the parameters.
            loss = loss + term.weight * term.loss_sum / max(1, micro.step_targets[term.name])
            self._sums.add(term)
        return loss * self.loss_scale

    def on_train_batch_start(self, batch: MicroBatch[B], batch_idx: int) -> None:
        """Sets the learning rate of this optimizer step."""
        config = self.training_config
        factor = learning_rate_factor(config.schedule, step=batch.update, num_steps=self.num_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = config.optimizer.lr * factor

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Reports the step over all ranks, and stops a run whose loss is no longer a number before it steps."""
        micro = self._current
        if not micro.is_last:
            return
        self.update = micro.update + 1
        row = {f"train/{name}": value for name, value in self._sums.reduce(micro.step_targets, self.device).items()}
        row["lr"] = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.history.append({"update": float(self.update), **row})
        total = row["train/total"]
        if total != total or total in (float("inf"), float("-inf")):
            raise FloatingPointError(
                f"the loss is {total} at optimizer step {self.update}, learning rate {row['lr']:.3g}, "
                f"examples {micro.indices.tolist()} on this rank: lower the rate, or look at these examples"
            )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves the tensors of a micro-batch, and remembers it for the reports of its step."""
        batch.batch = batch.batch.to(device)
        self._current: MicroBatch[B] = batch
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, with decay of the matrices alone."""
        return build_optimizer(self.model, self.training_config.optimizer, fused=True)

    @torch.no_grad()
    def validate(self, batches: Iterable[ValidationBatch[B]]) -> dict[str, float]:
        """The losses and reports over the validation data of all ranks, each with its own denominator."""
        was_training = self.model.training
        self.model.eval()
        sums = Sums()
        with self.trainer.precision_plugin.val_step_context():
            for item in batches:
                for term in self.objective(item.batch.to(self.device)):
                    sums.add(term, counts=item.counts)
        self.model.train(was_training)
        return sums.reduce(None, self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a resume needs beside weights and optimizer."""
        checkpoint["pipeline"] = {"update": self.update, "history": self.history, "extra": self.extra_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores our own counters; Lightning's loops always begin anew, since our loader knows where to go on."""
        state = checkpoint["pipeline"]
        self.update = state["update"]
        self.history = state["history"]
        self.load_extra_state(state["extra"])
        checkpoint.pop("loops", None)

    def extra_state(self) -> dict[str, Any]:
        """Further state of a stage, of tensors and plain values."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what `extra_state` gave."""


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); weight decay for matrices only."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=fused
    )
