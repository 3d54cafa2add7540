"""The records that `prepare` writes and every later stage reads: documents, pairs, ratings, conversations.

A record belongs to a group (a document, a template, a review): no group is divided between splits. Files are JSON lines
in UTF-8 with sorted keys, so that equal records are equal bytes.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.text.lines import numbered_lines

Role = Literal["system", "user", "assistant"]
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
SPLITS: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Document:
    """Running text; paragraphs are lines."""

    id: str
    title: str
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence and its translation."""

    id: str
    src: str
    tgt: str
    source: str
    group: str
    reference: str = ""
    """The translation before it was tokenised, lower-cased or, of a file of valid or test, cleaned; empty where nothing
    was done to it."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A short text and the valence that people gave it, from -4 (extremely negative) to 4."""

    id: str
    text: str
    mean: float
    ratings: tuple[int, ...]
    domain: str
    group: str
    document: str = ""
    """The review or article that it is a sentence of; empty for a text by itself."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, or a pair of texts, and what is to be said of it."""

    id: str
    text: str
    second: str | None
    """The second text of a pair; None for a single text."""
    label: str
    """The class by its name, or a number in decimals; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A sentence whose words have tags."""

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...]
    """Its entities in IOB2, one tag a word."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns of a user and an assistant; the last one is the assistant's."""

    id: str
    source: str
    messages: tuple[Message, ...]
    group: str


Record = Document | Pair | Rated | Labelled | Tagged | Conversation


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Writes records as JSON lines, as `line_of` makes them; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as output:
        for record in records:
            output.write(line_of(record))
            count += 1
    return count


def line_of(record: Record) -> str:
    """A record as one line of JSON, without what served the split, and without a reference that says nothing new."""
    row = {key: value for key, value in asdict(record).items() if key not in ("group", "document")}
    if row.get("reference") == "":
        del row["reference"]
    return json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n"


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; ValueError names the file and the line of a fault."""
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: expected an object, found {type(row).__name__}")
        if _ESCAPED_HALF.search(line):
            refuse_half_characters(row, f"{path}:{number}")
        yield row


def read_value(path: Path) -> Any:
    """The one value of a JSON file; ValueError names the file, and the line or the key of a fault."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from error
    refuse_half_characters(value, str(path))
    return value


def refuse_half_characters(value: Any, where: str, key: str = "") -> None:
    """ValueError names the key of a text with a lone surrogate: JSON can say it, and UTF-8 has no form for it."""
    match value:
        case str():
            if found := _HALF.search(value):
                half = f"\\u{ord(found[0]):04x} at position {found.start()}"
                raise ValueError(f"{where}: {key or 'the text'}: half a character, the lone surrogate {half}")
        case dict():
            for name, part in value.items():
                refuse_half_characters(part, where, f"{key}.{name}" if key else str(name))
        case list() | tuple():
            for number, part in enumerate(value):
                refuse_half_characters(part, where, f"{key}[{number}]")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The `numbered_lines` of a file; ValueError names the line that is not UTF-8, and the byte."""

    def fault(number: int, error: UnicodeDecodeError) -> str:
        byte = error.object[error.start]
        return f"{path}:{number}: not UTF-8: byte 0x{byte:02x} at position {error.start} of the line"

    with path.open("rb") as stream:
        yield from numbered_lines(stream, fault)


def read_header(lines: Iterator[tuple[int, str]]) -> tuple[str, ...]:
    """The names of the columns in the first of the numbered lines of a tab-separated file."""
    _, first = next(lines, (1, ""))
    return tuple(first.lstrip("\ufeff").split("\t"))


def check_columns(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    """ValueError names the wanted columns that a file has not, and those that it has, or one that it has twice."""
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise ValueError(f"{path}:1: no column {', '.join(map(repr, missing))}; the columns are {', '.join(columns)}")
    if twice := [column for column in wanted if columns.count(column) > 1]:
        raise ValueError(f"{path}:1: column {twice[0]!r} is there {columns.count(twice[0])} times; expected it once")


def files_below(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder and below it that fit a pattern, sorted; ValueError when none does."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not files:
        raise ValueError(f"{folder}: no file fits {pattern}")
    return files


def read_text(path: Path) -> str:
    """The whole of a UTF-8 file; ValueError names the line that is not UTF-8, or the file when it is empty."""
    text = "\n".join(line for _, line in read_lines(path))
    if not text.strip():
        raise ValueError(f"{path}: empty file")
    return text
