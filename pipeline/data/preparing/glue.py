"""The GLUE benchmark (Wang et al. 2019): nine tasks and a diagnostic set, from the official files or from the hub.

The official files are tab-separated without any quoting: a quotation mark is text. Labels are read by the names of
their classes, whatever the files write for them; what the leaderboard wants is what the official files write.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from typing import Literal, get_args

from pipeline.data.records import Labelled, check_columns, read_header, read_lines, read_rows

GlueName = Literal["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI"]
Score = Literal["accuracy", "f1", "matthews", "pearson", "spearman"]

DIAGNOSTIC = "diagnostic"
"""The split of MNLI that is the diagnostic set: premises and hypotheses by linguistic phenomenon."""


@dataclass(frozen=True)
class GlueTask:
    """How one task is written down and scored."""

    texts: tuple[str, ...]
    """Columns of the one text, or of the two, in files with a header."""
    label: str
    """Column of the label."""
    classes: tuple[str, ...]
    """The classes in the order of their numbers on the hub; none for a regression."""
    written: tuple[str, ...]
    """What the official files and the leaderboard write for each class."""
    scores: tuple[Score, ...]
    """What the benchmark reports of dev and test; the task's figure is their mean."""
    keys: tuple[str, ...] = ("sentence1", "sentence2")
    """Keys of the one text, or of the two, on the hub."""
    has_header: bool = True
    """Whether the first line of train and dev names the columns; that of test always does."""
    may_break: bool = False
    """Whether the official train and dev files have rows of another number of columns: left out and counted."""
    splits: tuple[tuple[str, str, str, str], ...] = (
        ("train", "train", "train", ""),
        ("valid", "dev", "validation", ""),
        ("test", "test", "test", ""),
    )
    """Each split: our name, the official file, the hub's name, and what tells its file of predictions from others.

    What the hub has under a name other than the task's stands behind that name and a slash.
    """

    @property
    def is_pair(self) -> bool:
        """Whether an example has two texts."""
        return len(self.texts) == 2


_NUMBERS = ("0", "1")
_ENTAILED = ("entailment", "not_entailment")
_SENTENCES = ("sentence1", "sentence2")
TASKS: Mapping[GlueName, GlueTask] = {
    # Train and dev of CoLA have no header: source, label, the author's own mark, sentence.
    "CoLA": GlueTask(
        ("sentence",),
        "label",
        ("unacceptable", "acceptable"),
        _NUMBERS,
        ("matthews",),
        keys=("sentence",),
        has_header=False,
    ),
    "SST-2": GlueTask(("sentence",), "label", ("negative", "positive"), _NUMBERS, ("accuracy",), keys=("sentence",)),
    "MRPC": GlueTask(
        ("#1 String", "#2 String"), "Quality", ("not_equivalent", "equivalent"), _NUMBERS, ("f1", "accuracy")
    ),
    "STS-B": GlueTask(_SENTENCES, "score", (), (), ("pearson", "spearman")),
    "QQP": GlueTask(
        ("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        _NUMBERS,
        ("f1", "accuracy"),
        keys=("question1", "question2"),
        may_break=True,
    ),
    "MNLI": GlueTask(
        _SENTENCES,
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        ("entailment", "neutral", "contradiction"),
        ("accuracy",),
        keys=("premise", "hypothesis"),
        splits=(
            ("train", "train", "train", ""),
            ("valid", "dev_matched", "validation_matched", "-m"),
            ("valid_mismatched", "dev_mismatched", "validation_mismatched", "-mm"),
            ("test", "test_matched", "test_matched", "-m"),
            ("test_mismatched", "test_mismatched", "test_mismatched", "-mm"),
            (DIAGNOSTIC, "diagnostic", "ax/test", ""),
        ),
    ),
    "QNLI": GlueTask(
        ("question", "sentence"), "label", _ENTAILED, _ENTAILED, ("accuracy",), keys=("question", "sentence")
    ),
    "RTE": GlueTask(_SENTENCES, "label", _ENTAILED, _ENTAILED, ("accuracy",)),
    "WNLI": GlueTask(_SENTENCES, "label", ("not_entailment", "entailment"), _NUMBERS, ("accuracy",)),
}
"""MNLI has a second dev and test set, of genres that are not in train, and answers the diagnostic set as well."""
assert set(TASKS) == set(get_args(GlueName))

_VALUES = (0.0, 5.0)
"""The least and the largest label of a regression, the similarity of STS-B."""
_COLA_COLUMNS = ("source", "label", "mark", "sentence")
_REQUIRED = ("train", "valid")
_LABELLED = "-full"
"""Behind the name of the diagnostic set in the file that has its labels."""
_INDICES = ("index", "id")
"""What the column is called by which the leaderboard knows a row of a test set; the second name is that of QQP."""


@dataclass(frozen=True)
class GlueSplit:
    """The examples of one split, in file order; their label is empty where the leaderboard keeps it.

    The id of an example ends with the number of its row: in what the leaderboard asks for, the file's own.
    """

    examples: tuple[Labelled, ...]
    num_broken: int
    """Rows left out because they had more or fewer columns than the file."""


def read_glue(
    folder: Path, name: GlueName, *, diagnostic: Path | None = None, required: Sequence[str] = _REQUIRED
) -> dict[str, GlueSplit]:
    """Every split that the folder holds: official TRAIN.tsv files, or JSON lines of the hub's data set.

    The folder may hold other tasks too, each in a folder of its name. The diagnostic set stands anywhere below it, as
    diagnostic/diagnostic.tsv beside MNLI does, or in the folder `diagnostic`, if that is given; diagnostic-full.tsv,
    the same rows with their labels, goes before it.

    Raises ValueError that names the file and the line of a fault, and a folder without the splits that are required.
    """
    task = TASKS[name]
    own = folder / name if (folder / name).is_dir() else folder
    found: dict[str, GlueSplit] = {}
    for split, official, hub, _ in task.splits:
        place = own
        if split == DIAGNOSTIC:
            place, hub = (folder, hub) if diagnostic is None else (diagnostic, hub.rpartition("/")[2])
        tables, rows = (_below(place, f"{official}.tsv"), _below(place, f"{hub}.jsonl"))
        if split == DIAGNOSTIC:
            tables = _below(place, f"{official}{_LABELLED}.tsv") or tables
        if tables and rows:
            raise ValueError(f"{place}: {split} of {name} is there twice: {tables} and {rows}")
        if tables:
            found[split] = _read_table(tables, task, split)
        elif rows:
            found[split] = GlueSplit(tuple(_read_hub(rows, task, split)), 0)
        elif split in required or place == diagnostic:
            raise ValueError(f"{place}: {name} needs {official}.tsv, or {hub}.jsonl of the hub: found neither")
    return found


def reported_scores(name: GlueName, split: str) -> tuple[Score, ...]:
    """What the benchmark reports of a split: on the diagnostic set Matthews correlation, that of three classes."""
    return ("matthews",) if split == DIAGNOSTIC else TASKS[name].scores


def is_asked(split: str) -> bool:
    """Whether the leaderboard asks for answers to a split; scores are reported on the others."""
    return not split.startswith(_REQUIRED)


def index_of(example: str, split: str) -> str:
    """The number of its row, by the id of an example."""
    return example.removeprefix(f"{split}-")


def _below(folder: Path, file: str) -> Path | None:
    """The file in the folder or in one below it; ValueError where there are several that differ.

    Copies are one: some archives of MNLI hold the diagnostic set, which is also given out in a folder of its own.
    """
    paths = sorted(path for path in folder.rglob(file) if path.is_file())
    if any(not cmp(paths[0], path, shallow=False) for path in paths[1:]):
        raise ValueError(f"{folder}: expected one {file}, found {', '.join(map(str, paths))}, which differ")
    return paths[0] if paths else None


def _read_table(path: Path, task: GlueTask, split: str) -> GlueSplit:
    lines = read_lines(path)
    is_labelled = not split.startswith("test")
    columns: tuple[str, ...] = _COLA_COLUMNS
    if task.has_header or not is_labelled:
        columns = read_header(lines)
    # The diagnostic set is given out without its labels, and with them under other names.
    wanted = _diagnostic_columns(columns, task) if split == DIAGNOSTIC else (*task.texts, task.label)
    if not is_labelled or (split == DIAGNOSTIC and wanted[-1] not in columns):
        wanted, is_labelled = wanted[:-1], False
    check_columns(path, columns, wanted)
    places = [columns.index(column) for column in wanted]
    numbered = [columns.index(column) for column in _INDICES if is_asked(split) and column in columns][:1]
    examples: list[Labelled] = []
    known: set[int] = set()
    num_broken = 0
    for number, line in lines:
        fields = line.split("\t")
        # More of them would be a text with a tab in it, of which only the beginning were read.
        if len(fields) != len(columns):
            # Who leaves out a row of a test set answers another one in its stead.
            if is_asked(split) or not task.may_break:
                raise ValueError(
                    f"{path}:{number}: expected {len(columns)} columns, found {len(fields)}: {line[:60]!r}"
                )
            num_broken += 1
            continue
        values = [fields[place] for place in places]
        label = _class_of(values.pop(), task, f"{path}:{number}") if is_labelled else ""
        index = len(examples)
        if numbered:
            index = _new_index(fields[numbered[0]], known, f"{path}:{number}: {columns[numbered[0]]}")
        examples.append(_example(values, label, task, f"{split}-{index}"))
    if not examples:
        raise ValueError(f"{path}: no examples")
    return GlueSplit(tuple(examples), num_broken)


def _new_index(written: str, known: set[int], where: str) -> int:
    """The number of a row, added to those that are known already."""
    if not written.isdecimal() or int(written) in known:
        raise ValueError(f"{where}: expected a whole number that no row before has, found {written!r}")
    known.add(int(written))
    return int(written)


def _diagnostic_columns(columns: tuple[str, ...], task: GlueTask) -> tuple[str, ...]:
    if "Premise" in columns:
        return "Premise", "Hypothesis", "Label"
    return *task.texts, task.label


def _class_of(written: str, task: GlueTask, where: str) -> str:
    """The name of the class, or the number of a regression as it stands there."""
    if not task.classes:
        _check_value(written, where)
        return written
    if written not in task.written:
        raise ValueError(f"{where}: label {written!r} is not allowed; allowed are {', '.join(task.written)}")
    return task.classes[task.written.index(written)]


def _check_value(written: str, where: str) -> None:
    """ValueError where the label of a regression is no number of the range that the benchmark has."""
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    low, high = _VALUES
    if not low <= value <= high:
        raise ValueError(f"{where}: label {written!r} is not allowed; allowed are numbers from {low:g} to {high:g}")


def _read_hub(path: Path, task: GlueTask, split: str) -> Iterator[Labelled]:
    """Rows of the hub's data set, whose labels are numbers, and -1 where they are hidden; in test of MRPC none is."""
    known: set[int] = set()
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path}:{number}"
        texts = []
        for key in task.keys:
            if not isinstance(row.get(key), str):
                raise ValueError(
                    f"{where}: {key}: expected a text, found {row.get(key)!r}; keys: {', '.join(sorted(row))}"
                )
            texts.append(row[key])
        label = row.get("label")
        if isinstance(label, bool) or not isinstance(label, int | float):
            raise ValueError(f"{where}: label: expected a number, found {label!r}")
        if label == -1 and is_asked(split):
            name = ""
        elif task.classes:
            if label not in range(len(task.classes)):
                raise ValueError(f"{where}: label {label} is not allowed; allowed are 0 to {len(task.classes) - 1}")
            name = task.classes[int(label)]
        else:
            _check_value(str(label), where)
            name = repr(float(label))
        index = number - 1
        if is_asked(split) and "idx" in row:
            index = _new_index(str(row["idx"]), known, f"{where}: idx")
        yield _example(texts, name, task, f"{split}-{index}")


def _example(texts: list[str], label: str, task: GlueTask, name: str) -> Labelled:
    return Labelled(id=name, text=texts[0], second=texts[1] if task.is_pair else None, label=label)


def predictions_file(name: GlueName, split: str) -> str:
    """The name of the file in which the leaderboard expects the answers to a test set."""
    if split == DIAGNOSTIC:
        return "AX.tsv"
    ending = next(ending for ours, _, _, ending in TASKS[name].splits if ours == split)
    return f"{name}{ending}.tsv"


def leaderboard_rows(indices: Sequence[str], answers: Sequence[str], name: GlueName) -> str:
    """The answers to a test set as the leaderboard takes them: a header, then index and answer.

    `answers` are names of classes; values of the regression go there with three digits, kept within 0 to 5.
    """
    task = TASKS[name]
    if task.classes:
        written = [task.written[task.classes.index(answer)] for answer in answers]
    else:
        written = [f"{min(_VALUES[1], max(_VALUES[0], float(answer))):.3f}" for answer in answers]
    rows = (f"{index}\t{one}" for index, one in zip(indices, written, strict=True))
    return "".join(f"{row}\n" for row in ("index\tprediction", *rows))
