"""What a model folder holds, told by its config.json without opening the model: the kinds that answer requests, and
what the outputs of a classifier are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, assert_never, get_args

Kind = Literal["gpt", "reward", "bert", "bilm", "classifier", "tagger", "answerer", "translator", "word_vectors"]
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What the outputs of a classifier are, as config.json of Hugging Face says it: classes of which one is true, labels
each of which is true or not, or real values."""

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


def problem_of(config: Mapping[str, Any]) -> Problem:
    """What the outputs of a classifier are; ValueError names a `problem_type` that is none of these.

    Where config.json says nothing it is what the loss of `transformers` takes them for: one output is a real value,
    several are classes.
    """
    allowed: tuple[Problem, ...] = get_args(Problem)
    has_one = num_outputs(config) == 1
    found: Problem = config.get("problem_type") or ("regression" if has_one else "single_label_classification")
    if found not in allowed:
        raise ValueError(f"config.json: problem_type is {found!r}, allowed are {', '.join(allowed)}")
    if found == "single_label_classification" and has_one:
        raise ValueError(f"config.json: problem_type is {found!r} with one output, allowed are two or more")
    return found


def num_outputs(config: Mapping[str, Any]) -> int:
    """Outputs of a classifier; two where config.json does not name them, as in `transformers`."""
    return len(config.get("id2label", range(2)))


def has_one_answer(problem: Problem, num_outputs: int) -> bool:
    """Whether a classifier says exactly one thing of each text: the likeliest class, or its one value."""
    match problem:
        case "single_label_classification":
            return True
        case "multi_label_classification":
            return False
        case "regression":
            return num_outputs == 1
        case _:
            assert_never(problem)
