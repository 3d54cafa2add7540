"""What fine-tuning learns from: the task of a configuration, read, checked and encoded.

The tasks of other kinds than texts have their own files, `finetune_tags.py` and `finetune_answers.py`.
"""

from pathlib import Path
from typing import Any, Literal, assert_never

from pydantic import PositiveFloat, model_validator

from pipeline.artifacts import read_json
from pipeline.config import Config
from pipeline.data.examples.classification import LabelledText
from pipeline.data.prepared import read_labelled, read_rated
from pipeline.data.preparing.glue import TASKS, GlueName
from pipeline.data.preparing.labelled_files import read_labelled_file
from pipeline.data.preparing.tasks import TASK, TaskName
from pipeline.data.records import SPLITS
from pipeline.layout import Layout
from pipeline.stages.finetune_answers import QuestionsTask, open_questions
from pipeline.stages.finetune_tags import open_tagging
from pipeline.stages.finetune_task import OpenedTask
from pipeline.stages.finetune_texts import Target, labelled_rows, open_texts
from pipeline.text.tokenizer import Tokenizer

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
