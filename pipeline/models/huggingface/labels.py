"""How config.json names the outputs of a head."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.kinds import num_outputs
from pipeline.models.huggingface.names import setting


def label_settings(labels: Sequence[str], num_outputs: int, dropout: float) -> dict[str, Any]:
    """Names of the outputs, and dropout before them; ValueError when there are not as many names as outputs."""
    if len(labels) != num_outputs or len(set(labels)) != num_outputs:
        raise ValueError(f"the model has {num_outputs} outputs, found the labels {list(labels)}")
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "classifier_dropout": dropout,
    }


def sequence_label_settings(labels: Sequence[str], num_outputs: int, dropout: float) -> dict[str, Any]:
    """The same of a classifier of texts, whose one output is a regression."""
    problem = "regression" if len(labels) == 1 else "single_label_classification"
    return label_settings(labels, num_outputs, dropout) | {"problem_type": problem}


def from_label_settings(config: Mapping[str, Any]) -> tuple[int, float]:
    """Number of outputs, and dropout before the classifier."""
    dropout = config.get("classifier_dropout")
    return num_outputs(config), setting(config, "hidden_dropout_prob") if dropout is None else dropout
