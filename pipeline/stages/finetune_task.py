"""What the stage finetune asks of a task, whatever is learned: texts, tags, answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from pipeline.config import TrainingConfig
from pipeline.data.batches import Batch, TokenExamples
from pipeline.training.base import StageModule

A = TypeVar("A")
B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Answers(Generic[A]):
    """What a fine-tuned model says of every held-out example, and how it is to be asked."""

    by_split: Mapping[str, A]
    """The answers of each held-out split, in the order of its examples."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON files of the model folder by their names: what is to be known beyond config.json."""


@dataclass(frozen=True)
class Evaluation:
    """How a fine-tuned model does on the held-out splits."""

    metrics: Mapping[str, Any]
    """`score` of the split that `split` names, beside `baselines` that know less; more of both under `others`."""
    samples: Sequence[Mapping[str, Any]]
    """Examples with what the model says of them, for people."""
    predictions: Mapping[str, str] = field(default_factory=dict)
    """Files of predictions by their names: what the model says of every example of each held-out split."""


def by_split(results: Mapping[str, Mapping[str, Any]], main: str) -> dict[str, Any]:
    """The metrics of an evaluation from the results of each split, of which `main` is the one that counts."""
    others = {split: one for split, one in results.items() if split != main}
    return {"split": main, **results[main], "others": others}


@runtime_checkable
class OpenedTask(Protocol[B]):
    """A task with its examples read, checked and encoded."""

    @property
    def train(self) -> TokenExamples[B]:
        """What is learned from."""

    @property
    def valid(self) -> TokenExamples[B]:
        """What the loss is watched on; nothing is chosen by it."""

    @property
    def counts(self) -> Mapping[str, Any]:
        """How many examples there are, and how many were changed to fit the model."""

    def network(self, encoder: Any, pooler: Any, *, dropout: float) -> nn.Module:
        """The encoder with a new head."""

    def module(self, model: Any, training: TrainingConfig) -> StageModule[B]:
        """The network with its loss."""

    def answer(self, model: Any) -> Answers[Any]:
        """Asks the model about the held-out splits."""

    def evaluate(self, answers: Answers[Any]) -> Evaluation:
        """Scores the answers, those of a split as a whole, beside those of what knows less."""

    def export(self, model: Any) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """config.json and parameters in the layout of the Hugging Face class."""
