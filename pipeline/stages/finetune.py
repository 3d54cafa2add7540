"""Fine-tuning of BERT on a task (Devlin et al. 2019, section 4): texts, pairs of texts, tags of words, and questions.

One configuration is one training: the same network from random weights is a configuration of its own, and so is each
network that stands beside BERT (finetune_networks.py). What is learned is a task (finetune_task.py); the weights come
from the stage that pretrains the network, or from any BERT or GPT-2 in the layout of Hugging Face.
"""

import logging
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from pipeline.artifacts import load_model, publish, read_json, save_model, write_json
from pipeline.config import Config, Fraction, TrainingConfig, load
from pipeline.data.batches import Examples
from pipeline.data.classification import LabelledText
from pipeline.data.glue import TASKS, GlueName
from pipeline.data.labelled_files import read_labelled_file
from pipeline.data.plan import TrainingPlan
from pipeline.data.prepared import read_labelled, read_rated
from pipeline.data.records import SPLITS
from pipeline.data.tasks import TASK, TaskName
from pipeline.layout import Layout
from pipeline.models.bert import Bert, Pooler
from pipeline.models.bilstm import build_pooling
from pipeline.models.heads import SequenceClassifier
from pipeline.models.huggingface.bert import bert_encoder_from_huggingface
from pipeline.models.text_encoders import LastTokenPooling, TextEncoder, TextPooler
from pipeline.models.text_flops import text_training_flops
from pipeline.stages.finetune_answers import QuestionsTask, open_questions
from pipeline.stages.finetune_networks import (
    BertNetwork,
    BiLMNetwork,
    BiLSTMNetwork,
    GPTNetwork,
    Network,
    Start,
    bilm_encoder,
    bilstm_encoder,
    check_length,
    gpt_encoder,
    open_tokenizer,
    pretraining_stage,
)
from pipeline.stages.finetune_tags import open_tagging
from pipeline.stages.finetune_task import OpenedTask
from pipeline.stages.finetune_texts import Target, labelled_rows, open_texts
from pipeline.text.tokenizer import Tokenizer
from pipeline.training.fit import fit
from pipeline.training.launch import launch
from pipeline.training.run import stage_run

log = logging.getLogger(__name__)

POLARITIES = ("negative", "positive")
"""The classes of polarity, in the order of their numbers."""


class PolarityTask(Config):
    """Positive or negative: rated texts whose mean rating is far enough from neutral."""

    kind: Literal["polarity"]
    domains: tuple[str, ...]
    """Domains of the texts."""
    min_strength: PositiveFloat
    """Smallest absolute mean rating of a text that counts as polar."""


class RatingTask(Config):
    """The mean rating itself, from -4 to 4."""

    kind: Literal["rating"]
    domains: tuple[str, ...]
    """Domains of the texts."""


class GlueTaskConfig(Config):
    """A task of the GLUE benchmark (Wang et al. 2019)."""

    kind: Literal["glue"]
    name: GlueName
    """The task, which prepare wrote under any name of its own."""
    folder: str = ""
    """That name below prepared/tasks/; empty where it is that of the task."""


class FilesTask(Config):
    """The user's own texts, or pairs of texts: tab-separated files with a header, or JSON lines."""

    kind: Literal["files"]
    splits: dict[Literal["train", "valid", "test"], Path]
    """The file of each split, .tsv or .jsonl; test may be left out, or have no labels."""
    text: str
    """Column, or key, of the text."""
    second: str = ""
    """Column of the second text of a pair; empty for single texts."""
    label: str
    """Column of the label."""
    target: Literal["classes", "value"]
    """Whether labels are names of classes, those of the training file in alphabetical order, or numbers."""

    @model_validator(mode="after")
    def _is_whole(self) -> "FilesTask":
        missing = [split for split in ("train", "valid") if split not in self.splits]
        if missing:
            raise ValueError(f"splits: no {' and no '.join(missing)}, found {', '.join(self.splits) or 'none'}")
        return self


class TaggingTaskConfig(Config):
    """Entities in sentences, each a span of words with a type."""

    kind: Literal["tagging"]
    name: TaskName
    """The task by the name that prepare.yaml gives it."""


Task = PolarityTask | RatingTask | GlueTaskConfig | FilesTask | TaggingTaskConfig | QuestionsTask


class FinetuneConfig(Config):
    """The stage finetune."""

    training: TrainingConfig
    """How it is trained."""
    task: Annotated[Task, Field(discriminator="kind")]
    """What is learned."""
    network: Annotated[Network, Field(discriminator="kind")] = BertNetwork(kind="bert")
    """What learns it."""
    encoder: str = ""
    """Folder of the network's pretrained model, its tokenizer with it; empty for that of its stage of pretraining."""
    start: Start
    """Weights of the encoder at the beginning: those of its folder, or random ones of the same shape."""
    max_length: PositiveInt
    """Longest text, or pair of texts, in tokens; a longer one is shortened, for tags cut into several, and counted. A
    longer passage of a question is read through several windows. The folder of the model keeps it."""
    dropout: Fraction
    """Dropout of the encoder and before the classifier."""
    attention_dropout: Fraction = 0.0
    """Dropout of the attention weights (published: 0.1); what the encoder was pretrained with does not count."""

    @model_validator(mode="after")
    def _network_has_what_is_asked_of_it(self) -> "FinetuneConfig":
        kind = self.network.kind
        if kind != "bert" and isinstance(self.task, TaggingTaskConfig | QuestionsTask):
            raise ValueError(f"network: a task of {self.task.kind} is learned by bert alone, found {kind}")
        if kind == "bilstm" and self.start != "random":
            raise ValueError("start: a bilstm has no pretrained weights, allowed is random")
        if kind in ("bilstm", "bilm") and self.attention_dropout:
            raise ValueError(f"attention_dropout is for bert and gpt, found {self.attention_dropout} for {kind}")
        return self


def main(path: Path) -> None:
    """Trains on one task and scores what was held out beside what knows less."""
    config = load(path, FinetuneConfig)
    layout = Layout.of(path)
    folder = Path(config.encoder) if config.encoder else layout.model(pretraining_stage(config.network))
    inputs = (folder, *vectors(config.network), *sources(config.task, layout))
    with stage_run(__spec__.name, path, config, seed=config.training.seed, inputs=inputs) as run:
        tokenizer = open_tokenizer(config.network, folder)
        task = open_task(config.task, layout, tokenizer, max_length=config.max_length)
        encoder, pooler = build_network(folder, config, tokenizer)
        tokenizer.check_fits(encoder.config.vocab_size, folder)
        module = task.module(task.network(encoder, pooler, dropout=config.dropout), config.training)
        fit(run, module, train=task.train, valid=task.valid)
        answers = task.answer(module.model)
        with publish(run.layout.output) as target:
            save_model(target, *task.export(module.model))
            for name, values in answers.settings.items():
                write_json(target / name, values)
            tokenizer.save(target, max_length=config.max_length)
        # Behind the model, so that a fault of a baseline, which ends the stage, does not lose what was trained.
        evaluation = task.evaluate(answers)
        run.finish(
            {
                **evaluation.metrics,
                **task.counts,
                "training": {
                    "num_parameters": sum(parameter.numel() for parameter in module.model.parameters()),
                    "num_steps": module.num_steps,
                    "flops": training_flops(module.model, encoder, task.train, config.training),
                },
            },
            history=module.history,
            samples=evaluation.samples,
            predictions=evaluation.predictions,
        )


def sources(task: Task, layout: Layout) -> tuple[Path, ...]:
    """The files and folders that a task is read from."""
    match task:
        case PolarityTask() | RatingTask():
            return (layout.data("prepared/rated"),)
        case GlueTaskConfig():
            return (layout.data("prepared/tasks") / (task.folder or task.name),)
        case FilesTask():
            return tuple(task.splits.values())
        case TaggingTaskConfig() | QuestionsTask():
            return (layout.data("prepared/tasks") / task.name,)
        case _:
            assert_never(task)


def open_task(task: Task, layout: Layout, tokenizer: Tokenizer, *, max_length: int) -> OpenedTask[Any]:
    """Reads, checks and encodes a task; ValueError names file and line of what is not allowed."""
    match task:
        case PolarityTask():
            return open_texts(rated_splits(layout, task), Target(POLARITIES), tokenizer, max_length=max_length)
        case RatingTask():
            return open_texts(rated_splits(layout, task), Target((), value="rating"), tokenizer, max_length=max_length)
        case GlueTaskConfig():
            (folder,) = sources(task, layout)
            return open_texts(
                glue_texts(folder, task.name),
                Target(TASKS[task.name].classes, value="similarity", glue=task.name),
                tokenizer,
                max_length=max_length,
            )
        case FilesTask():
            texts = own_texts(task)
            classes = tuple(sorted({text.label for text in texts["train"]})) if task.target == "classes" else ()
            if len(classes) == 1:
                raise ValueError(f"{task.splits['train']}: all texts have the label {classes[0]!r}")
            return open_texts(texts, Target(classes, value=task.label), tokenizer, max_length=max_length)
        case TaggingTaskConfig():
            (folder,) = sources(task, layout)
            return open_tagging(folder, tokenizer, max_length=max_length)
        case QuestionsTask():
            (folder,) = sources(task, layout)
            return open_questions(folder, tokenizer, task, max_length=max_length)
        case _:
            assert_never(task)


def rated_splits(layout: Layout, task: PolarityTask | RatingTask) -> dict[str, list[LabelledText]]:
    """The rated texts of every split."""
    return {split: rated_texts(layout, split, task) for split in SPLITS}


def rated_texts(layout: Layout, split: str, task: PolarityTask | RatingTask) -> list[LabelledText]:
    """The rated texts of one split with their labels; ValueError when none is left."""
    path = layout.data(f"prepared/rated/{split}.jsonl")
    texts = [text for text in read_rated(path) if text.domain in task.domains]
    match task:
        case PolarityTask():
            texts = [text for text in texts if abs(text.mean) >= task.min_strength]
            labels = [POLARITIES[text.mean > 0] for text in texts]
        case RatingTask():
            labels = [repr(text.mean) for text in texts]
    if not texts:
        raise ValueError(f"{path}: no texts of the domains {sorted(task.domains)} for the task {task.kind}")
    return [
        LabelledText(text=text.text, second=None, label=label, where=f"{path}, id {text.id}")
        for text, label in zip(texts, labels, strict=True)
    ]


def glue_texts(folder: Path, name: GlueName) -> dict[str, list[LabelledText]]:
    """Every split that prepare wrote; ValueError for a folder of another task."""
    found = read_json(folder / TASK)
    if found != {"kind": "glue", "name": name}:
        raise ValueError(f"{folder / TASK}: expected the GLUE task {name}, found {found}")
    paths = {split: folder / f"{split}.jsonl" for split, _, _, _ in TASKS[name].splits}
    return {split: labelled_rows(path, read_labelled(path)) for split, path in paths.items() if path.is_file()}


def own_texts(task: FilesTask) -> dict[str, list[LabelledText]]:
    """The texts of the user's files."""
    return {
        split: read_labelled_file(
            path, text=task.text, second=task.second, label=task.label, may_lack_labels=split == "test"
        )
        for split, path in task.splits.items()
    }


def vectors(network: Network) -> tuple[Path, ...]:
    """The folder of word vectors that a network begins with, if it does."""
    return (Path(network.vectors),) if isinstance(network, BiLSTMNetwork) and network.vectors else ()


def build_network(folder: Path, config: FinetuneConfig, tokenizer: Tokenizer) -> tuple[TextEncoder, TextPooler]:
    """The encoder of a configuration and what makes one vector of its states; ValueError names what does not fit."""
    network = config.network
    match network:
        case BertNetwork():
            return build_encoder(folder, config)
        case GPTNetwork():
            gpt = gpt_encoder(
                folder,
                tokenizer,
                start=config.start,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                max_length=config.max_length,
            )
            return gpt, LastTokenPooling()
        case BiLSTMNetwork():
            lstm = bilstm_encoder(network, tokenizer, dropout=config.dropout, max_length=config.max_length)
            return lstm, build_pooling(network.pooling, lstm.config.d_model)
        case BiLMNetwork():
            over = bilm_encoder(
                network, folder, start=config.start, dropout=config.dropout, max_length=config.max_length
            )
            return over, build_pooling(network.pooling, over.config.d_model)
        case _:
            assert_never(network)


def build_encoder(folder: Path, config: FinetuneConfig) -> tuple[Bert, Pooler]:
    """The pretrained encoder with its pooler, or the same networks from random weights.

    A folder without a pooler gets one from the seed, as in `transformers`; ValueError names a folder that does not fit.
    """
    found = load_model(folder)
    dropouts = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.attention_dropout}
    try:
        encoder, pooler = bert_encoder_from_huggingface({**found.config, **dropouts}, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    shape = encoder.config
    check_length(config.max_length, shape.max_length, folder)
    if config.start == "random":
        return Bert(shape), Pooler(shape.d_model, initial_std=shape.initial_std)
    if pooler is None:
        pooler = Pooler(shape.d_model, initial_std=shape.initial_std)
        # Neither the network of tags nor that of questions reads it.
        if not isinstance(config.task, TaggingTaskConfig | QuestionsTask):
            log.warning("%s: the weights have no pooler (bert.pooler.dense): it begins from the seed", folder)
    return encoder, pooler


def training_flops(network: nn.Module, encoder: TextEncoder, train: Examples[Any], training: TrainingConfig) -> float:
    """Operations of the matrix products of a training in the encoder, padding, head and validations left out."""
    plan = TrainingPlan(train, training.batching, training.duration, seed=training.seed)
    lengths = train.sizes(0).lengths
    reads_first = isinstance(network, SequenceClassifier)
    return sum(
        text_training_flops(encoder, lengths[step.indices], reads_first=reads_first) for _, step in plan.steps(0)
    )


if __name__ == "__main__":
    launch(main)
