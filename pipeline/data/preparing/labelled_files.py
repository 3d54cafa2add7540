"""A user's own texts with labels: tab-separated files whose first line names the columns, or JSON lines.

A tab-separated file has no quoting: a quotation mark is text, and a text holds no tab and no line break.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.data.cleaning import is_blank
from pipeline.data.examples.classification import LabelledText
from pipeline.data.records import check_columns, read_header, read_lines, read_rows


def read_labelled_file(path: Path, *, text: str, second: str, label: str, may_lack_labels: bool) -> list[LabelledText]:
    """The texts of a file, by the names of its columns or keys; `second` is empty where a text stands alone.

    Raises ValueError that names file and line of a missing column, a text in which nothing can be seen, and an empty
    label. The second text of a pair may be empty.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix not in (".tsv", ".jsonl"):
        raise ValueError(f"{path}: found {path.suffix or 'no ending'}, allowed are .tsv and .jsonl")
    found = []
    wanted = [column for column in (text, second, label) if column]
    for where, row in (
        _table(path, wanted, may_lack=label if may_lack_labels else "") if path.suffix == ".tsv" else _rows(path)
    ):
        values = {column: _value(row, column, where) for column in wanted if column != label}
        if is_blank(values[text]):
            raise ValueError(f"{where}: {text} is empty")
        given = "" if may_lack_labels and row.get(label) in (None, "") else _value(row, label, where)
        if not given and not may_lack_labels:
            raise ValueError(f"{where}: {label} is empty")
        found.append(LabelledText(values[text], values[second] if second else None, given, where))
    if not found:
        raise ValueError(f"{path}: no texts")
    return found


def _table(path: Path, wanted: list[str], *, may_lack: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lines = read_lines(path)
    columns = read_header(lines)
    check_columns(path, columns, [column for column in wanted if column != may_lack or column in columns])
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(columns):
            raise ValueError(f"{path}:{number}: expected {len(columns)} columns, found {len(fields)}: {line[:60]!r}")
        yield f"{path}:{number}", dict(zip(columns, fields, strict=True))


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, row in enumerate(read_rows(path), start=1):
        yield f"{path}:{number}", row


def _value(row: Mapping[str, Any], key: str, where: str) -> str:
    """A text as it is, a number or a truth value in the digits of JSON."""
    match row.get(key):
        case None:
            raise ValueError(f"{where}: no {key}; the row has {', '.join(sorted(row))}")
        case bool(value):
            return str(value).lower()
        case str() | int() | float() as value:
            return str(value)
        case value:
            raise ValueError(f"{where}: {key}: expected a text or a number, found {value!r}")
