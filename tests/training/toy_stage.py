"""A stage small enough to be killed, resumed and cut in every way: predicts each number of a sequence from the last.

Run like a real stage, so that Lightning starts further ranks of it:
`python -m tests.training.toy_stage conf/tiny/toy.yaml`. What a test does to it comes by environment variables, since
the run key of a checkpoint belongs to the configuration.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.artifacts import publish
from pipeline.config import Config, TrainingConfig, load
from pipeline.data.batches import InstructionBatch, Sizes
from pipeline.objectives.terms import LossTerms
from pipeline.training.base import StageModule
from pipeline.training.fit import fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run
from pipeline.training.selection import Selection, SelectionConfig


class ToyConfig(Config):
    """The toy stage."""

    training: TrainingConfig
    """How it is trained."""
    dropout: float
    """Dropout of the hidden layer."""
    selection: SelectionConfig = SelectionConfig()
    """Which weights become the model."""


class Walks:
    """Random walks of unequal length on a ring of 16 numbers; two thirds of the positions count."""

    def __init__(self, size: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.walks = [random.integers(1, 3, random.integers(3, 12)).cumsum() % 16 for _ in range(size)]

    def sizes(self, epoch: int) -> Sizes:
        """Lengths and counted positions."""
        lengths = np.array([len(walk) - 1 for walk in self.walks])
        counts = np.array([int((np.arange(n) % 3 > 0).sum()) for n in lengths])
        return Sizes(lengths=lengths, num_targets={"loss": counts, "first": np.ones_like(lengths)})

    def collate(self, indices: np.ndarray, epoch: int) -> InstructionBatch:
        """Right-padded rows."""
        width = max(len(self.walks[i]) for i in indices) - 1
        rows = np.zeros((3, len(indices), width), dtype=np.int64)
        for row, i in enumerate(indices):
            walk = self.walks[i]
            rows[0, row, : len(walk) - 1] = walk[:-1]
            rows[1, row, : len(walk) - 1] = walk[1:]
            rows[2, row, : len(walk) - 1] = np.arange(len(walk) - 1) % 3 > 0
        ids, labels, counted = torch.from_numpy(rows)
        return InstructionBatch(ids, labels, counted.bool())


class ToyModel(nn.Module):
    """Has one of each that a strategy may lose: a shared parameter, a frozen one, a buffer, one that is not saved."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(16, 24), nn.Linear(24, 16)
        self.head.weight = self.embedding.weight
        self.hidden = nn.Linear(24, 24)
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor([0.5]), requires_grad=False)
        self.register_buffer("shift", torch.full((24,), 0.1))
        self.register_buffer("forgotten", torch.full((24,), -0.1), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(self.embedding(input_ids)) + self.shift + self.forgotten)
        logits: Tensor = self.head(self.dropout(hidden)) * self.scale
        return logits


class Toy(StageModule[InstructionBatch]):
    """Two losses with different denominators."""

    def __init__(self, config: ToyConfig) -> None:
        torch.manual_seed(config.training.seed)
        super().__init__(ToyModel(config.dropout), config.training)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Lightning calls this once, when it has registered its handlers and no callback of ours has had its turn."""
        if os.environ.get("TOY_BEFORE_FIRST_STEP") == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        super().zero_grad(set_to_none)

    def objective(self, batch: InstructionBatch) -> tuple[LossTerms, ...]:
        """Cross entropy of the counted positions, and of each first position."""
        logits = self.model(batch.input_ids)
        loss = nn.functional.cross_entropy(logits[batch.is_response], batch.labels[batch.is_response], reduction="sum")
        first = nn.functional.cross_entropy(logits[:, 0], batch.labels[:, 0], reduction="sum")
        if self.model.training:
            match os.environ.get(f"TOY_AT_{self.update + 1}"):
                case "nan loss":
                    loss = loss * float("nan")
                case "nan gradient":
                    loss = loss + (0 * self.model.get_parameter("head.bias").sum()).sqrt()
            time.sleep(float(os.environ.get("TOY_STEP_SECONDS", "0")))
        else:
            match os.environ.get("TOY_VALIDATION"):
                case "nan":
                    loss = loss * float("nan")
                case "bad":
                    loss = loss + 1000
            time.sleep(float(os.environ.get("TOY_VALIDATION_SECONDS", "0")))
        return (
            LossTerms(loss, int(batch.is_response.sum()), report={"nll": loss.detach()}),
            LossTerms(first, len(batch.labels), name="first", weight=0.5),
        )


def main(path: Path) -> None:
    """Trains on walks and writes the weights."""
    config = load(path, ToyConfig)
    with stage_run("tests.training.toy_stage", path, config, seed=config.training.seed, inputs=()) as run:
        module = Toy(config)
        selection = Selection(config.selection, bleu=None)
        fit(run, module, train=Walks(203, seed=1), valid=Walks(31, seed=2), selection=selection)
        if os.environ.get("TOY_AFTER_TRAINING") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        weights = module.model.state_dict()
        assert torch.equal(weights.pop("head.weight"), weights["embedding.weight"])
        assert weights.keys() == {"embedding.weight", "hidden.weight", "hidden.bias", "head.bias", "scale", "shift"}
        with publish(run.layout.output) as folder:
            save_file(weights, folder / "model.safetensors")
        run.finish({"loss": module.history[-1]["valid/loss"]}, history=module.history)


if __name__ == "__main__":
    launch(main)
