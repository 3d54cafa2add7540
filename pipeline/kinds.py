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

REWARD_MARK: Mapping[str, str] = {"pipeline_model": "reward"}
"""What config.json of our reward models says, and that of no other `GPT2ForSequenceClassification`."""


def kind_of(config: Mapping[str, Any], folder: Path) -> Kind:
    """The kind of the model in `folder`, whose config.json says `config`; ValueError names what was found instead."""
    match (config.get("architectures") or [""])[0], config.get("model_type"):
        case ("GPT2LMHeadModel", _):
            return "gpt"
        case ("GPT2ForSequenceClassification", _):
            return "reward" if _is_reward(config) else "classifier"
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


def _is_reward(config: Mapping[str, Any]) -> bool:
    """Whether this is a reward model of ours, by its mark.

    Those written before there was one call their output `reward` and have no dropout before it, for which every
    classifier of ours has a key.
    """
    if config.keys() >= REWARD_MARK.keys():
        return all(config[key] == value for key, value in REWARD_MARK.items())
    unmarked = {"id2label": {"0": "reward"}, "problem_type": "regression"}
    return "classifier_dropout" not in config and all(config.get(key) == value for key, value in unmarked.items())


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
    """Outputs of a classifier or tagger."""
    return len(output_names(config))


def output_names(config: Mapping[str, Any]) -> list[str]:
    """Names of the outputs of a classifier or tagger in the order of their numbers, from 0.

    Where config.json names none they are as many as its `num_labels`, or two, by the names of Hugging Face. ValueError
    says what of `id2label` or `num_labels` is something else.
    """
    names = config.get("id2label")
    if names is None:
        count = config.get("num_labels")
        count = 2 if count is None else count
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"config.json: num_labels: found {count!r}, allowed is a number of outputs, 1 or more")
        return [f"LABEL_{number}" for number in range(count)]
    if not isinstance(names, Mapping) or not names:
        raise ValueError(f"config.json: id2label: found {names!r}, allowed are names by the numbers of the outputs")
    numbers = [str(number) for number in range(len(names))]
    if set(names) != set(numbers):
        raise ValueError(
            f"config.json: id2label: found the numbers {', '.join(map(str, names))}, allowed are 0 to "
            f"{len(names) - 1}, each once"
        )
    return [str(names[number]) for number in numbers]


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
