"""A user's own files: columns and keys by name, and a fault that names file and line."""

from pathlib import Path

import pytest

from pipeline.data.examples.classification import LabelledText
from pipeline.data.preparing.labelled_files import read_labelled_file


def read(path: Path, *, second: str = "", may_lack_labels: bool = False) -> list[LabelledText]:
    return read_labelled_file(path, text="says", second=second, label="kind", may_lack_labels=may_lack_labels)


def test_a_table_is_read_by_the_names_of_its_columns_and_a_quotation_mark_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('kind\tid\tsays\tand\ngood\t1\t"so it is\tyes\nbad\t2\tno "way"\t\n', encoding="utf-8-sig")
    assert read(path, second="and") == [
        LabelledText('"so it is', "yes", "good", f"{path}:2"),
        LabelledText('no "way"', "", "bad", f"{path}:3"),
    ]
    assert [(one.text, one.second) for one in read(path)] == [('"so it is', None), ('no "way"', None)]


def test_json_lines_are_read_by_their_keys_with_labels_of_any_simple_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"says": "a\\tb", "kind": 3}\n{"says": "c", "kind": 0.5}\n{"says": "d", "kind": true}\n')
    assert [(one.text, one.label, one.where) for one in read(path)] == [
        ("a\tb", "3", f"{path}:1"),
        ("c", "0.5", f"{path}:2"),
        ("d", "true", f"{path}:3"),
    ]


def test_labels_may_be_missing_where_a_file_is_only_to_be_answered(tmp_path: Path) -> None:
    table, rows = tmp_path / "a.tsv", tmp_path / "a.jsonl"
    table.write_text("id\tsays\n1\tx\n")
    rows.write_text('{"says": "x"}\n')
    for path in (table, rows):
        assert [(one.text, one.label) for one in read(path, may_lack_labels=True)] == [("x", "")]


def test_columns_that_nobody_reads_may_have_one_name_and_labels_that_may_be_missing_may_not(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("\tsays\t\tkind\n1\tx\t2\tgood\n")
    assert [(one.text, one.label) for one in read(path)] == [("x", "good")]
    path.write_text("says\tkind\tkind\nx\tgood\tbad\n")
    with pytest.raises(ValueError, match=r"a.tsv:1: column 'kind' is there 2 times"):
        read(path, may_lack_labels=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "says,kind\n", r"a.csv: found .csv, allowed are .tsv and .jsonl"),
        ("a.tsv", "says\tsort\nx\ty\n", r"a.tsv:1: no column 'kind'; the columns are says, sort"),
        ("a.tsv", "says\tkind\tsays\nx\tgood\ty\n", r"a.tsv:1: column 'says' is there 2 times; expected it once"),
        ("a.tsv", "kind\tsays\tkind\ngood\tx\tbad\n", r"a.tsv:1: column 'kind' is there 2 times; expected it once"),
        ("a.tsv", "says\tkind\nx\n", r"a.tsv:2: expected 2 columns, found 1: 'x'"),
        ("a.tsv", "says\tkind\n \tgood\n", r"a.tsv:2: says is empty"),
        ("a.tsv", "says\tkind\n\u200b\tgood\n", r"a.tsv:2: says is empty"),
        ("a.tsv", "says\tkind\nx\tgood\nx\t\n", r"a.tsv:3: kind is empty"),
        ("a.tsv", "says\tkind\n", r"a.tsv: no texts"),
        ("a.jsonl", '{"says": "x"}\n', r"a.jsonl:1: no kind; the row has says"),
        (
            "a.jsonl",
            '{"says": ["x"], "kind": "good"}\n',
            r"a.jsonl:1: says: expected a text or a number, found \['x'\]",
        ),
        ("a.jsonl", '{"says": "x", "kind": "good"}\n{"says"\n', r"a.jsonl:2: not JSON"),
    ],
)
def test_a_fault_names_file_and_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.tsv: no such file"):
        read(tmp_path / "a.tsv")
