"""GLUE as its files are: columns of every task, quotation marks, hidden labels, the hub's rows, the leaderboard's."""

import json
import os
from pathlib import Path
from typing import get_args

import pytest

from pipeline.data.fetching.sources import GIVEN
from pipeline.data.preparing.glue import (
    TASKS,
    GlueName,
    index_of,
    is_asked,
    leaderboard_rows,
    predictions_file,
    read_glue,
)

# First lines of the official train and dev files, and of the test files, written down by hand.
HEADERS: dict[str, tuple[str, str]] = {
    "CoLA": ("", "index\tsentence"),
    "SST-2": ("sentence\tlabel", "index\tsentence"),
    "MRPC": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "index\t#1 ID\t#2 ID\t#1 String\t#2 String"),
    "STS-B": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2",
    ),
    "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "id\tquestion1\tquestion2"),
    "MNLI": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2",
    ),
    "QNLI": ("index\tquestion\tsentence\tlabel", "index\tquestion\tsentence"),
    "RTE": ("index\tsentence1\tsentence2\tlabel", "index\tsentence1\tsentence2"),
    "WNLI": ("index\tsentence1\tsentence2\tlabel", "index\tsentence1\tsentence2"),
}
# A label as the official files write it, our name for it, and its number on the hub (GLUE's dataset card).
LABELS: dict[str, tuple[str, str, float]] = {
    "CoLA": ("0", "unacceptable", 0),
    "SST-2": ("1", "positive", 1),
    "MRPC": ("1", "equivalent", 1),
    "STS-B": ("3.800", "3.800", 3.8),
    "QQP": ("0", "not_duplicate", 0),
    "MNLI": ("contradiction", "contradiction", 2),
    "QNLI": ("not_entailment", "not_entailment", 1),
    "RTE": ("entailment", "entailment", 0),
    "WNLI": ("1", "entailment", 1),
}
HUB_KEYS: dict[str, tuple[str, ...]] = {
    "CoLA": ("sentence",),
    "SST-2": ("sentence",),
    "MRPC": ("sentence1", "sentence2"),
    "STS-B": ("sentence1", "sentence2"),
    "QQP": ("question1", "question2"),
    "MNLI": ("premise", "hypothesis"),
    "QNLI": ("question", "sentence"),
    "RTE": ("sentence1", "sentence2"),
    "WNLI": ("sentence1", "sentence2"),
}
TEXTS = ('A "bare quote', "and \" another's")
NAMES: tuple[GlueName, ...] = get_args(GlueName)


def line(columns: list[str], label: str, index: object = "x") -> str:
    """A row with the texts, the label and the index in their columns, and an x in every other."""
    first, *second = ([*columns[3:]] if columns == ["source", "label", "mark", "sentence"] else []) or [
        column for column in columns if column in ("sentence", "sentence1", "question1", "question", "#1 String")
    ][:1] + [column for column in columns if column in ("sentence2", "question2", "#2 String")]
    if columns[1:3] == ["question", "sentence"]:
        first, second = "question", ["sentence"]
    values = {first: TEXTS[0], **dict.fromkeys(second, TEXTS[1])}
    values |= dict.fromkeys(("label", "Quality", "score", "is_duplicate", "gold_label"), label)
    values |= dict.fromkeys(("index", "id"), str(index))
    return "\t".join(values.get(column, "x") for column in columns)


def official(folder: Path, name: str) -> None:
    """The official files of a task: two rows in each split."""
    folder.mkdir(parents=True)
    header, test_header = HEADERS[name]
    columns = header.split("\t") if header else ["source", "label", "mark", "sentence"]
    rows = [line(columns, LABELS[name][0])] * 2
    endings = ("_matched", "_mismatched") if name == "MNLI" else ("",)
    for split in ("train", *(f"dev{ending}" for ending in endings)):
        (folder / f"{split}.tsv").write_text("\n".join([*([header] if header else []), *rows]))
    for ending in endings:
        text = "\n".join([test_header, *(line(test_header.split("\t"), "", i) for i in range(2))]) + "\n"
        (folder / f"test{ending}.tsv").write_text(text)


@pytest.mark.parametrize("name", NAMES)
def test_every_split_of_the_official_files_is_read_and_a_hidden_label_is_empty(name: GlueName, tmp_path: Path) -> None:
    official(tmp_path / name, name)
    found = read_glue(tmp_path / name, name)
    mismatched = {"valid_mismatched", "test_mismatched"} if name == "MNLI" else set()
    assert found.keys() == {"train", "valid", "test"} | mismatched
    second = TEXTS[1] if len(HUB_KEYS[name]) == 2 else None
    for split, part in found.items():
        assert part.num_broken == 0
        assert [one.id for one in part.examples] == [f"{split}-0", f"{split}-1"]
        for one in part.examples:
            label = "" if split.startswith("test") else LABELS[name][1]
            assert (one.text, one.second, one.label) == (TEXTS[0], second, label)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_the_hub_are_the_same_examples_and_minus_one_is_a_hidden_label(name: GlueName, tmp_path: Path) -> None:
    row: dict[str, object] = dict(zip(HUB_KEYS[name], TEXTS, strict=False)) | {"idx": 0}
    endings = ("_matched", "_mismatched") if name == "MNLI" else ("",)
    for split in ("train", *(f"validation{ending}" for ending in endings)):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row | {"label": LABELS[name][2]}) + "\n")
    for ending in endings:
        (tmp_path / f"test{ending}.jsonl").write_text(json.dumps(row | {"label": -1}) + "\n")
    found = read_glue(tmp_path, name)
    for split, part in found.items():
        (one,) = part.examples
        assert (one.text, one.second) == (TEXTS[0], TEXTS[1] if len(HUB_KEYS[name]) == 2 else None)
        if split.startswith("test"):
            assert one.label == ""
        elif name == "STS-B":
            assert float(one.label) == 3.8
        else:
            assert one.label == LABELS[name][1]


def test_copies_of_the_diagnostic_set_are_one_and_others_are_named(tmp_path: Path) -> None:
    """Some archives of MNLI hold it, and the usual scripts load it into a folder of its own as well."""
    folder = tmp_path / "MNLI"
    official(folder, "MNLI")
    text = "index\tsentence1\tsentence2\n0\tone\ttwo\n"
    (folder / "diagnostic").mkdir()
    for path in (folder / "diagnostic.tsv", folder / "diagnostic/diagnostic.tsv"):
        path.write_text(text)
    assert [one.text for one in read_glue(folder, "MNLI")["diagnostic"].examples] == ["one"]
    (folder / "diagnostic/diagnostic.tsv").write_text(text.replace("two", "six"))
    with pytest.raises(ValueError, match=r"expected one diagnostic.tsv, found .*/MNLI/diagnostic.tsv, which differ"):
        read_glue(folder, "MNLI")


def test_labels_that_the_hub_shows_in_a_test_set_are_kept(tmp_path: Path) -> None:
    """MRPC's, whose test set was published with them before the benchmark was."""
    for split, labels in {"train": [1, 0], "validation": [1], "test": [0, 1]}.items():
        rows = [{"sentence1": "a", "sentence2": "b", "label": label, "idx": i} for i, label in enumerate(labels)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [one.label for one in read_glue(tmp_path, "MRPC")["test"].examples] == ["not_equivalent", "equivalent"]


def test_the_test_set_of_the_official_folder_of_mrpc_is_hidden_though_its_labels_lie_beside_it(tmp_path: Path) -> None:
    official(tmp_path / "MRPC", "MRPC")
    for file in ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"):
        (tmp_path / "MRPC" / file).write_text(f"{HEADERS['MRPC'][0]}\n1\t1\t2\tone\ttwo\n")
    (tmp_path / "MRPC/dev_ids.tsv").write_text("1\t2\n")
    found = read_glue(tmp_path / "MRPC", "MRPC")
    assert [(one.id, one.text, one.label) for one in found["test"].examples] == [
        (f"test-{i}", TEXTS[0], "") for i in range(2)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_goes_to_the_leaderboard_as_the_official_files_write_it(name: GlueName) -> None:
    answers = [LABELS[name][1]] * 2 if name != "STS-B" else ["3.8", "5.25", "-0.5"]
    indices = [str(3 * i) for i in range(len(answers))]
    rows = leaderboard_rows(indices, answers, name).split("\n")
    assert rows[0] == "index\tprediction" and rows[-1] == ""
    expected = [LABELS[name][0]] * 2 if name != "STS-B" else ["3.800", "5.000", "0.000"]
    assert rows[1:-1] == [f"{i}\t{one}" for i, one in zip(indices, expected, strict=True)]


def test_the_files_of_predictions_have_the_names_of_the_leaderboard() -> None:
    found = {
        predictions_file(name, split) for name in NAMES for split, _, _, _ in TASKS[name].splits if is_asked(split)
    }
    assert found == {
        *("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"),
        *("QNLI.tsv", "RTE.tsv", "WNLI.tsv", "AX.tsv"),
    }


def test_the_diagnostic_set_is_read_with_its_labels_and_without(tmp_path: Path) -> None:
    official(tmp_path / "MNLI", "MNLI")
    file = tmp_path / "MNLI/diagnostic.tsv"
    file.write_text("index\tsentence1\tsentence2\n0\tA cat .\tA dog .\n")
    (one,) = read_glue(tmp_path / "MNLI", "MNLI")["diagnostic"].examples
    assert (one.text, one.second, one.label) == ("A cat .", "A dog .", "")
    file.write_text("Lexical Semantics\tDomain\tPremise\tHypothesis\tLabel\n\tNews\tA cat .\tA dog .\tneutral\n")
    (one,) = read_glue(tmp_path / "MNLI", "MNLI")["diagnostic"].examples
    assert (one.text, one.second, one.label) == ("A cat .", "A dog .", "neutral")


@pytest.mark.parametrize("apart", [True, False])
def test_the_diagnostic_set_with_its_labels_goes_before_the_one_without(apart: bool, tmp_path: Path) -> None:
    """By the names under which the benchmark gives them out."""
    official(tmp_path / "glue/MNLI", "MNLI")
    folder = tmp_path / ("apart" if apart else "glue/diagnostic")
    folder.mkdir()
    columns = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge", "Domain")
    rows = (
        (*columns, "Premise", "Hypothesis", "Label"),
        ("", "", "Negation", "", "News", "A cat .", "A dog .", "contradiction"),
        ("Factivity", "", "", "", "News", "A cat .", "A pet .", "entailment"),
    )
    (folder / "diagnostic-full.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    for is_both in (False, True):
        if is_both:
            hidden = "index\tsentence1\tsentence2\n0\tA cat .\tA dog .\n1\tA cat .\tA pet .\n"
            (folder / "diagnostic.tsv").write_text(hidden)
        found = read_glue(tmp_path / "glue", "MNLI", diagnostic=folder if apart else None)["diagnostic"].examples
        assert [(one.id, one.text, one.second, one.label) for one in found] == [
            ("diagnostic-0", "A cat .", "A dog .", "contradiction"),
            ("diagnostic-1", "A cat .", "A pet .", "entailment"),
        ]


def test_the_diagnostic_set_is_found_beside_mnli_and_in_a_folder_of_its_own(tmp_path: Path) -> None:
    official(tmp_path / "glue/MNLI", "MNLI")
    (tmp_path / "glue/diagnostic").mkdir()
    (tmp_path / "glue/diagnostic/diagnostic.tsv").write_text("index\tsentence1\tsentence2\n0\tA cat .\tA dog .\n")
    beside = read_glue(tmp_path / "glue", "MNLI")
    assert [one.text for one in beside["diagnostic"].examples] == ["A cat ."]
    assert [one.text for one in beside["train"].examples] == [TEXTS[0]] * 2
    (tmp_path / "glue/diagnostic").rename(tmp_path / "apart")
    assert "diagnostic" not in read_glue(tmp_path / "glue", "MNLI")
    assert read_glue(tmp_path / "glue", "MNLI", diagnostic=tmp_path / "apart") == beside
    (tmp_path / "apart/diagnostic.tsv").unlink()
    row = {"premise": "A cat .", "hypothesis": "A dog .", "label": -1, "idx": 0}
    (tmp_path / "apart/test.jsonl").write_text(json.dumps(row) + "\n")
    assert read_glue(tmp_path / "glue", "MNLI", diagnostic=tmp_path / "apart") == beside
    (tmp_path / "apart/test.jsonl").unlink()
    message = r"apart: MNLI needs diagnostic.tsv, or test.jsonl of the hub: found neither"
    with pytest.raises(ValueError, match=message):
        read_glue(tmp_path / "glue", "MNLI", diagnostic=tmp_path / "apart")


def test_the_hubs_diagnostic_set_beside_other_tasks_is_known_by_its_name(tmp_path: Path) -> None:
    official(tmp_path / "MNLI", "MNLI")
    for task in ("RTE", "ax"):
        (tmp_path / task).mkdir()
        row = {"premise": task, "hypothesis": "A dog .", "label": -1, "idx": 0}
        (tmp_path / task / "test.jsonl").write_text(json.dumps(row) + "\n")
    assert [one.text for one in read_glue(tmp_path, "MNLI")["diagnostic"].examples] == ["ax"]


def test_the_rows_of_a_test_set_keep_the_index_of_their_file(tmp_path: Path) -> None:
    official(tmp_path / "QQP", "QQP")
    columns = HEADERS["QQP"][1].split("\t")
    rows = [HEADERS["QQP"][1], *(line(columns, "", index) for index in (4, 0, 7))]
    (tmp_path / "QQP/test.tsv").write_text("\n".join(rows) + "\n")
    found = read_glue(tmp_path / "QQP", "QQP")["test"].examples
    assert [index_of(one.id, "test") for one in found] == ["4", "0", "7"]
    (tmp_path / "QQP/test.tsv").unlink()
    hub = [{"question1": "a", "question2": "b", "label": -1, "idx": index} for index in (2, 1)]
    (tmp_path / "QQP/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hub))
    assert [index_of(one.id, "test") for one in read_glue(tmp_path / "QQP", "QQP")["test"].examples] == ["2", "1"]
    (tmp_path / "QQP/test.jsonl").write_text("".join(json.dumps(row | {"idx": 1}) + "\n" for row in hub))
    with pytest.raises(
        ValueError, match=r"test.jsonl:2: idx: expected a whole number that no row before has, found '1'"
    ):
        read_glue(tmp_path / "QQP", "QQP")


def test_rows_of_qqp_with_other_columns_than_the_file_are_left_out_and_counted(tmp_path: Path) -> None:
    official(tmp_path / "QQP", "QQP")
    with (tmp_path / "QQP/train.tsv").open("a") as file:
        file.write("\n7\t8\t9\tA question that ends with a line break?\n")
        file.write("7\t8\t9\tOne with a\ttab?\tAnother?\t0\n")
    part = read_glue(tmp_path / "QQP", "QQP")["train"]
    assert (len(part.examples), part.num_broken) == (2, 2)


@pytest.mark.parametrize(("name", "file"), [("CoLA", "train"), ("RTE", "dev"), ("MRPC", "test"), ("QQP", "test")])
def test_a_tab_within_a_text_is_refused_instead_of_cutting_it(name: GlueName, file: str, tmp_path: Path) -> None:
    official(tmp_path / name, name)
    path = tmp_path / f"{name}/{file}.tsv"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([first, *(row.replace("bare", "bare\tand") for row in others)]))
    columns = len(first.split("\t"))
    with pytest.raises(ValueError, match=rf"{file}.tsv:2: expected {columns} columns, found {columns + 1}: "):
        read_glue(tmp_path / name, name)


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("RTE", "train.tsv", "index\tsentence1\tlabel\n0\ta\tentailment\n", r"train.tsv:1: no column 'sentence2'; the"),
        ("RTE", "dev.tsv", f"{HEADERS['RTE'][0]}\n0\ta\tentailment\n", r"dev.tsv:2: expected 4 columns, found 3: '0"),
        (
            "RTE",
            "train.tsv",
            f"{HEADERS['RTE'][0]}\n0\ta\tb\tmaybe\n",
            r"train.tsv:2: label 'maybe' is not allowed; al",
        ),
        (
            "QQP",
            "test.tsv",
            f"{HEADERS['QQP'][1]}\n0\ta\tb\n1\tA?\n2\ta\tb\n",
            r"test.tsv:3: expected 3 columns, found 2",
        ),
        (
            "QQP",
            "test.tsv",
            f"{HEADERS['QQP'][1]}\n0\ta\tb\n0\ta\tb\n",
            r"test.tsv:3: id: .* that no row before has, f",
        ),
        (
            "RTE",
            "test.tsv",
            f"{HEADERS['RTE'][1]}\nx\ta\tb\n",
            r"test.tsv:2: index: expected a whole number .* found 'x'",
        ),
        ("CoLA", "train.tsv", "gj04\t2\t\tA sentence.\n", r"train.tsv:1: label '2' is not allowed; allowed are 0, 1"),
        ("SST-2", "train.tsv", "sentence\tlabel\n", r"train.tsv: no examples"),
        ("SST-2", "dev.tsv", None, r"SST-2 needs dev.tsv, or validation.jsonl of the hub: found neither"),
        (
            "SST-2",
            "train.jsonl",
            '{"sentence": "x", "label": 1}\n',
            r"train of SST-2 is there twice: .*tsv and .*jsonl",
        ),
        ("SST-2", "again/train.tsv", "sentence\tlabel\nx\t1\n", r"expected one train.tsv, found .*again"),
    ],
)
def test_a_fault_names_file_and_line(name: GlueName, file: str, text: str | None, message: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    official(folder, name)
    (folder / file).parent.mkdir(exist_ok=True)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_glue(folder, name)


@pytest.mark.parametrize("label", ["high", "7.5", "-0.1", "nan", ""])
def test_a_similarity_outside_of_0_to_5_is_refused_where_it_stands(label: str, tmp_path: Path) -> None:
    official(tmp_path / "STS-B", "STS-B")
    header = HEADERS["STS-B"][0]
    rows = [header, *(line(header.split("\t"), one) for one in ("0", "5.000", label))]
    (tmp_path / "STS-B/train.tsv").write_text("".join(f"{row}\n" for row in rows))
    message = rf"train.tsv:4: label '{label}' is not allowed; allowed are numbers from 0 to 5"
    with pytest.raises(ValueError, match=message):
        read_glue(tmp_path, "STS-B")


@pytest.mark.parametrize("label", [7.5, -1])
def test_a_similarity_of_the_hub_outside_of_0_to_5_is_refused_where_it_stands(label: float, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        rows = [{"sentence1": "a", "sentence2": "b", "label": value} for value in (0, 5.0, label)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=rf"train.jsonl:3: label '{label}' is not .* numbers from 0 to 5"):
        read_glue(tmp_path, "STS-B")


def test_a_split_that_is_not_required_may_be_missing(tmp_path: Path) -> None:
    official(tmp_path / "RTE", "RTE")
    for file in ("dev.tsv", "test.tsv"):
        (tmp_path / "RTE" / file).unlink()
    assert list(read_glue(tmp_path, "RTE", required=("train",))) == ["train"]
    with pytest.raises(ValueError, match=r"RTE needs dev.tsv, or validation.jsonl of the hub: found neither"):
        read_glue(tmp_path, "RTE")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": 1}, r"train.jsonl:1: sentence: expected a text, found None; keys: label"),
        ({"sentence": "x", "label": 2}, r"train.jsonl:1: label 2 is not allowed; allowed are 0 to 1"),
        ({"sentence": "x", "label": -1}, r"train.jsonl:1: label -1 is not allowed; allowed are 0 to 1"),
        ({"sentence": "x", "label": "1"}, r"train.jsonl:1: label: expected a number, found '1'"),
    ],
)
def test_a_fault_in_a_row_of_the_hub_names_file_and_line(row: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "validation.jsonl").write_text('{"sentence": "x", "label": 1}\n')
    with pytest.raises(ValueError, match=message):
        read_glue(tmp_path, "SST-2")


SIZES: dict[GlueName, tuple[int, int]] = {
    "CoLA": (8551, 1043),
    "SST-2": (67349, 872),
    "MRPC": (3668, 408),
    "RTE": (2490, 277),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_official_files_have_their_sizes_and_no_broken_row(name: GlueName) -> None:
    found = list(Path(os.environ[GIVEN]).rglob(f"{name}/train.tsv")) if os.environ.get(GIVEN) else []
    if not found:
        pytest.skip(f"{GIVEN} names no folder with the official {name}/train.tsv")
    splits = read_glue(found[0].parent, name)
    assert tuple(len(splits[split].examples) for split in ("train", "valid")) == SIZES[name]
    assert not any(part.num_broken for part in splits.values())
