"""What a model folder holds, told by its config.json without opening the model: the kinds that answer requests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Kind = Literal["gpt", "reward", "bert", "bilm", "classifier", "tagger", "answerer", "translator", "word_vectors"]

_REWARDS = ({"0": "reward"}, {"0": "LABEL_0"})
"""Names of the one output of a reward model: ours, and what stands there where nobody named it."""


def kind_of(config: Mapping[str, Any], folder: Path) -> Kind:
    """The kind of the model in `folder`, whose config.json says `config`; ValueError names what was found instead."""
    match (config.get("architectures") or [""])[0], config.get("model_type"):
        case ("GPT2LMHeadModel", _):
            return "gpt"
        case ("GPT2ForSequenceClassification", _):
            return "reward" if config.get("id2label") in _REWARDS else "classifier"
        case ("BertForPreTraining" | "BertForMaskedLM", _):
            return "bert"
        case ("BertForSequenceClassification", _):
            return "classifier"
        case ("BertForTokenClassification", _):
            return "tagger"
        case ("BertForQuestionAnswering", _):
            return "answerer"
        case (_, "pipeline-bilm"):
            return "bilm"
        case (_, "pipeline-bilstm" | "pipeline-bilm-classifier"):
            return "classifier"
        case (_, "marian" | "pipeline-transformer" | "pipeline-recurrent"):
            return "translator"
        case (_, "word_vectors"):
            return "word_vectors"
    raise ValueError(
        f"{folder}: expected a model folder of GPT2LMHeadModel, GPT2ForSequenceClassification, BertForPreTraining, "
        f"BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering, a "
        f"recurrent classifier, a bidirectional language model, a translation model or word vectors, found "
        f"architectures {config.get('architectures')}"
    )
