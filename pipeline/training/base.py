"""The one training step that every stage shares.

A stage says what its loss is; here is what is the same for all: the division by the targets of the whole optimizer
step, the learning rate, the optimizer, the reports, and what a checkpoint has to carry beside the weights.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from pipeline.config import OptimizerConfig, TrainingConfig
from pipeline.data.batches import Batch, MicroBatch
from pipeline.data.loaders import ValidationBatch
from pipeline.objectives.terms import LossTerms
from pipeline.runtime import clip_gradients, gradient_norm
from pipeline.training.history import History, Sums
from pipeline.training.schedule import learning_rate_factor

B = TypeVar("B", bound=Batch)

_LOWEST_SCALE = 1.0
"""Of a loss in float16. A scale is there to lift gradients (Micikevicius et al. 2018, section 3.2); those that overflow
without one are no numbers, or too large for float16. From 65536 on, 17 skipped steps lead below it."""


class StageModule(LightningModule, Generic[B]):
    """Owns the model; subclasses choose the objective."""

    key_metrics: tuple[str, ...] = ()
    """Columns of the history that the progress shows beside the losses."""

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
        self.history = History()
        """One row of reports for each optimizer step, with those of a validation where there was one."""
        self.optimizer_settings: list[dict[str, Any]] = []
        """What is configured for each group of parameters."""
        self._sums = Sums()
        self._norm = math.nan
        self._losses: list[tuple[MicroBatch[B], Tensor]] = []
        """The micro-batches of the current step on this rank and their losses."""

    @abstractmethod
    def objective(self, batch: B) -> tuple[LossTerms, ...]:
        """The losses of a micro-batch, as sums."""

    def training_step(self, micro: MicroBatch[B], batch_idx: int) -> Tensor:
        """What this micro-batch contributes to the step's loss: its sums, over the targets of the whole step."""
        terms = self.objective(micro.batch)
        loss = torch.zeros((), device=self.device)
        for term in terms:
            # A term without targets in the whole step contributes zero, and stays connected to the parameters.
            loss = loss + term.weight * term.loss_sum / max(1, micro.step_targets[term.name])
            self._sums.add(term)
        self._losses.append((micro, loss.detach()))
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
        self._refuse_non_finite("loss", row["train/total"])

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by global norm, and keeps the norm for the reports."""
        self._norm = clip_gradients(self.trainer, self, clip_norm=gradient_clip_val or 0.0)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Reports the norm of the gradient; one that is no number ends the run before anything of it is saved."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self._current.is_last:
            norm = gradient_norm(self.trainer, clipped=self._norm)
            self.history.add_to_last({"grad_norm": norm})
            # In float16 the loss scale is lowered, and the step skipped, when gradients overflow.
            if self.trainer.precision != "16-mixed":
                self._refuse_non_finite("gradient norm", norm)
            elif not math.isfinite(norm):
                self._refuse_low_scale(norm)
            self._losses.clear()

    def _refuse_low_scale(self, norm: float) -> None:
        """FloatingPointError where so many steps in a row were skipped that no scale can be what they overflow by."""
        precision = self.trainer.precision_plugin
        assert isinstance(precision, MixedPrecision) and precision.scaler is not None
        scale = precision.scaler.get_scale()
        if scale < _LOWEST_SCALE:
            raise FloatingPointError(
                f"precision 16-mixed: the loss scale fell to {scale:g} at optimizer step {self.update}, where the "
                f"gradient norm is {norm}, and nothing is trained below {_LOWEST_SCALE:g}: set `precision: bf16-mixed` "
                "or `32-true` in the file of PIPELINE_RUNTIME, or lower the learning rate"
            )

    def _refuse_non_finite(self, name: str, value: float) -> None:
        if math.isfinite(value):
            return
        bad = [micro for micro, loss in self._losses if not loss.isfinite()]
        indices = [index for micro in bad or [micro for micro, _ in self._losses] for index in micro.indices.tolist()]
        raise FloatingPointError(
            f"the {name} is {value} at optimizer step {self.update}, learning rate {self.history[-1]['lr']:.3g}; "
            f"{'found in' if bad else 'not seen in the loss of'} the examples {indices} of this rank: "
            "lower the learning rate, or look at these examples"
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves the tensors of a micro-batch, and remembers it for the reports of its step."""
        batch.batch = batch.batch.to(device)
        self._current: MicroBatch[B] = batch
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The configured optimizer."""
        # The fused step undoes a loss scale inside, after the gradients were to be clipped.
        fused = self.trainer.precision != "16-mixed"
        optimizer = build_optimizer(self.model, self.training_config.optimizer, fused=fused)
        self.optimizer_settings = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]
        return optimizer

    @torch.no_grad()
    def validate(self, batches: Iterable[ValidationBatch[B]]) -> dict[str, float]:
        """The losses and reports over the validation data of all ranks, each with its own denominator.

        FloatingPointError names a loss that is no number, and the step.
        """
        was_training = self.model.training
        self.model.eval()
        sums = Sums()
        with self.trainer.precision_plugin.val_step_context():
            for item in batches:
                for term in self.objective(item.batch.to(self.device)):
                    sums.add(term, counts=item.counts)
        self.model.train(was_training)
        values = sums.reduce(None, self.device)
        for name, value in values.items():
            if "/" not in name:  # a loss, or the total of them
                refuse_non_finite(name, value, self.update)
        return values

    def progress(self) -> dict[str, Any]:
        """What a resume needs beside weights and optimizer, of tensors and plain values."""
        return {"update": self.update, "history": self.history.state(), "extra": self.extra_state()}

    def load_progress(self, state: dict[str, Any]) -> None:
        """Restores what `progress` gave."""
        self.update = state["update"]
        self.history = History.of(state["history"])
        self.load_extra_state(state["extra"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's loops always begin anew: our loader knows where to go on."""
        del checkpoint["loops"]

    def extra_state(self) -> dict[str, Any]:
        """Further state of a stage, of tensors and plain values."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what `extra_state` gave."""


def refuse_non_finite(metric: str, value: float, update: int) -> None:
    """FloatingPointError where a metric of the validation after `update` optimizer steps is no number."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"valid/{metric} is {value} after optimizer step {update}: nothing of this step is saved; look at the "
            "validation data, or lower the learning rate"
        )


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW with weight decay for matrices only, or AdaGrad; `fused` where the device has a fused step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.kind == "adagrad":
        # Its fused step exists for the CPU alone.
        fused = fused and all(parameter.device.type == "cpu" for parameter in parameters)
        return torch.optim.Adagrad(parameters, lr=config.lr, eps=config.eps, fused=fused)
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=fused
    )
