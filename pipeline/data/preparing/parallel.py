"""Readers of parallel text: gettext catalogues, JSON translations of software, two aligned files, tables, JSON lines.

Each reader yields raw pairs with the group (component, template, file) that must stay within one split.
"""

import csv
import json
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.data.cleaning import is_blank
from pipeline.data.records import read_lines, read_rows, read_value, refuse_half_characters

Into = Literal["split", "train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class RawPair:
    """A source text and its translation as they stand in a file."""

    src: str
    tgt: str
    group: str
    reference: str = ""
    """The target before somebody tokenised or lower-cased it."""


class ParallelSource(Config):
    """What every kind of parallel source has."""

    source: str
    """Folder below raw/."""
    into: Into = "split"
    """A fixed split, whose valid and test rows are kept as they are, or `split`: divided here by group."""


class LocalisedJson(ParallelSource):
    """Folders that hold one JSON tree a language, with the same keys: `components/NAME/translations/en.json`."""

    kind: Literal["localised_json"]
    src: str = "en.json"
    """File name of the source language."""
    tgt: str
    """File name of the target language."""


class Gettext(ParallelSource):
    """Message catalogues, .po or .mo, whose message ids are English text."""

    kind: Literal["gettext"]


class TwoFiles(ParallelSource):
    """Two aligned files: line n of one is the translation of line n of the other."""

    kind: Literal["two_files"]
    src: str
    """File of the source language, below the source's folder."""
    tgt: str
    """File of the target language."""
    reference: str = ""
    """File below raw/ with the target language as it was before these files were tokenised or lower-cased; empty for
    none. Pairs of valid and test keep its lines, those that are split off too; where a line of it is empty, the pair is
    for training, which has no use for it."""


class Table(ParallelSource):
    """A file with tabs between its columns, a pair a line."""

    kind: Literal["table"]
    file: str
    """The file, below the source's folder."""
    columns: tuple[Literal["src", "tgt", "group", "skip"], ...] = ("src", "tgt")
    """What each column holds: texts, the group that stays within one split, or what is passed over."""
    header: bool = False
    """Whether line 1 has the names of the columns."""
    quoting: Literal["none", "csv"] = "none"
    """none: a quotation mark is a part of the text; csv: one around a field encloses it, and two within it are one."""

    @model_validator(mode="after")
    def _names_both_texts(self) -> "Table":
        found = Counter(self.columns)
        if (found["src"], found["tgt"]) != (1, 1) or found["group"] > 1:
            raise ValueError(f"columns: src and tgt once each, group at most once; found {', '.join(self.columns)}")
        return self


class PairRows(ParallelSource):
    """JSON lines, for example a split of a hub data set."""

    kind: Literal["rows"]
    file: str
    """The file, below the source's folder."""
    src: str
    """Key of the source text; dots descend: `translation.en`."""
    tgt: str
    """Key of the target text."""


AnyParallel = Annotated[LocalisedJson | Gettext | TwoFiles | Table | PairRows, Field(discriminator="kind")]


def read_pairs(source: LocalisedJson | Gettext | TwoFiles | Table | PairRows, raw: Path) -> Iterator[RawPair]:
    """The pairs of a source, in file order. ValueError names file and line of a fault.

    For training a text may be empty, as in many a published corpus: such pairs are left out later, and counted. In
    valid and test nothing is empty, not even by what cleaning removes: a translation is compared with it.
    """
    folder = raw / source.source
    is_held_out = source.into in ("valid", "test")
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such source; fetch.yaml has to name it")
    match source:
        case LocalisedJson():
            messages = _localised_json(folder, source.src, source.tgt)
            yield from _translated(messages) if is_held_out else messages
        case Gettext():
            yield from _translated(_gettext(folder)) if is_held_out else _gettext(folder)
        case TwoFiles():
            paths = [folder / source.src, folder / source.tgt, *([raw / source.reference] if source.reference else [])]
            yield from _two_files(*paths, may_be_empty=not is_held_out)
        case Table():
            yield from _table(folder / source.file, source, may_be_empty=not is_held_out)
        case PairRows():
            for number, row in enumerate(read_rows(folder / source.file), start=1):
                where = f"{folder / source.file}:{number}"
                src, tgt = (_field(row, key, where, may_be_empty=not is_held_out) for key in (source.src, source.tgt))
                yield RawPair(src, tgt, f"{source.file}:{number}")
        case _:
            assert_never(source)


def _translated(messages: Iterator[RawPair]) -> Iterator[RawPair]:
    """Without those that nobody has translated yet, which are empty in the files of a program."""
    return (pair for pair in messages if not is_blank(pair.src) and not is_blank(pair.tgt))


def _localised_json(folder: Path, src: str, tgt: str) -> Iterator[RawPair]:
    for path in sorted(folder.rglob(src)):
        other = path.with_name(tgt)
        if other.is_file():
            group = path.parent.parent.name
            yield from (RawPair(one, two, group) for one, two in _leaves(read_value(path), read_value(other)))


def _leaves(one: Any, two: Any) -> Iterator[tuple[str, str]]:
    """The texts that stand at the same place in two JSON trees."""
    if isinstance(one, str) and isinstance(two, str):
        yield one, two
    elif isinstance(one, dict) and isinstance(two, dict):
        for key, value in one.items():
            if key in two:
                yield from _leaves(value, two[key])


def _gettext(folder: Path) -> Iterator[RawPair]:
    for path in sorted((*folder.rglob("*.po"), *folder.rglob("*.mo"))):
        file = path.relative_to(folder).as_posix()
        messages = _read_po(path) if path.suffix == ".po" else _read_mo(path)
        for src, tgt, reference in messages:
            if src and tgt:
                yield RawPair(src, tgt, f"{file}:{reference}")


def _read_po(path: Path) -> Iterator[tuple[str, str, str]]:
    """Message id, translation and first referenced template of every entry that is neither fuzzy nor obsolete."""
    entry: dict[str, str] = {}
    field, is_fuzzy, reference = "", False, ""
    lines = [line.strip() for _, line in read_lines(path)]
    for number, line in enumerate([*lines, ""], start=1):
        if not line:
            if not is_fuzzy:
                plural = "msgid_plural" in entry
                yield entry.get("msgid", ""), entry.get("msgstr[0]" if plural else "msgstr", ""), reference
                yield entry.get("msgid_plural", ""), entry.get("msgstr[1]", ""), reference
            entry, field, is_fuzzy, reference = {}, "", False, ""
        elif line.startswith("#,"):
            is_fuzzy = is_fuzzy or "fuzzy" in line
        elif line.startswith("#:"):
            reference = reference or (line[2:].split() or [""])[0].rpartition(":")[0] or line[2:].strip()
        elif not line.startswith("#"):
            name, quote, text = line.partition('"')
            field = name.strip() or field
            if not quote or not field or not text.endswith('"'):
                raise ValueError(f"{path}:{number}: not a line of a message catalogue: {line[:60]!r}")
            try:
                part = json.loads(f'"{text}')
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: badly quoted text: {line[:60]!r}") from error
            refuse_half_characters(part, f"{path}:{number}", field)
            entry[field] = entry.get(field, "") + part


def _read_mo(path: Path) -> Iterator[tuple[str, str, str]]:
    """Message id and translation of every entry of a compiled catalogue (GNU gettext manual, "The Format of MO")."""
    data = path.read_bytes()
    if data[:4] not in (b"\xde\x12\x04\x95", b"\x95\x04\x12\xde"):
        raise ValueError(f"{path}: not a compiled message catalogue")
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    try:
        count, ids, texts = struct.unpack_from(f"{order}3I", data, 8)
        for index in range(count):
            both = []
            for table in (ids, texts):
                length, offset = struct.unpack_from(f"{order}2I", data, table + 8 * index)
                both.append(data[offset : offset + length].decode("utf-8").rpartition("\x04")[2].split("\0"))
            yield both[0][0], both[1][0], ""
            if len(both[0]) == 2 and len(both[1]) == 2:
                yield both[0][1], both[1][1], ""
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged message catalogue: {error}") from error


def _two_files(*paths: Path, may_be_empty: bool) -> Iterator[RawPair]:
    """The lines of two aligned files, or of three: the third holds the untouched targets.

    The files are counted before they are read, so that none has to fit into memory.
    """
    counts = []
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        counts.append(sum(1 for _ in read_lines(path)))
    if len(set(counts)) > 1:
        found = ", ".join(f"{path} has {count} lines" for path, count in zip(paths, counts, strict=True))
        raise ValueError(f"parallel files differ in length: {found}")
    if not counts[0]:
        raise ValueError(f"{paths[0]}: empty file")
    for lines in zip(*(read_lines(path) for path in paths), strict=True):
        number, row = lines[0][0], [line for _, line in lines]
        for path, line in zip(paths, row, strict=True):
            if not may_be_empty and is_blank(line):
                raise ValueError(f"{path}:{number}: empty line in a parallel file of valid or test")
        yield RawPair(row[0], row[1], f"{paths[0].name}:{number}", *row[2:])


def _table(path: Path, table: Table, *, may_be_empty: bool) -> Iterator[RawPair]:
    num_rows = 0
    for num_rows, (number, fields) in enumerate(_fields(path, table.quoting), start=1):
        where = f"{path}:{number}"
        if len(fields) != len(table.columns):
            raise ValueError(
                f"{where}: expected {len(table.columns)} columns between tabs ({', '.join(table.columns)}), found "
                f"{len(fields)}: {' | '.join(fields)[:60]!r}; `columns` of this source names them, as [src, tgt, skip] "
                "or [group, src, tgt]"
            )
        if table.header and num_rows == 1:
            continue
        row = dict(zip(table.columns, fields, strict=True))
        for name, text in row.items():
            is_missing = not text.strip() if name == "group" else not may_be_empty and is_blank(text)
            if name != "skip" and is_missing:
                raise ValueError(f"{where}: expected a text in each column, found none in {name}")
        yield RawPair(row["src"], row["tgt"], row.get("group", f"{path.name}:{number}"))
    if num_rows <= table.header:
        raise ValueError(f"{path}: empty file")


def _fields(path: Path, quoting: Literal["none", "csv"]) -> Iterator[tuple[int, list[str]]]:
    """The columns of each row, and the number of its line: the first one where a quoted column has several."""
    if quoting == "none":
        yield from ((number, line.split("\t")) for number, line in read_lines(path))
        return
    rows = csv.reader((f"{line}\n" for _, line in read_lines(path)), delimiter="\t", strict=True)
    first = 1
    try:
        for row in rows:
            yield first, row
            first = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{first}: {_quoting_fault(str(error), rows.line_num)}") from error


def _quoting_fault(found: str, last: int) -> str:
    """What the csv module found, in words of this file; `last` is the line to which it has read."""
    if found == "unexpected end of data":
        return "badly quoted: a quotation mark that opens a column is not closed"
    if "expected after" in found:
        return f"badly quoted: a quotation mark in line {last} ends a column, and what is behind it is no tab"
    if found.startswith("field larger"):
        return (
            f"a column of this row has more than {csv.field_size_limit():,} characters, more than are allowed, or its "
            "quotation mark is not closed"
        )
    if found.startswith("new-line character"):
        return "a carriage return within the line, which is allowed between quotation marks only"
    return f"badly quoted: {found}"


def _field(row: dict[str, Any], key: str, where: str, *, may_be_empty: bool) -> str:
    """The text at a dotted key."""
    value: Any = row
    name = "the row"
    for part in key.split("."):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: no key {key!r}; {name} is {type(value).__name__}, which has no keys")
        if part not in value:
            raise ValueError(f"{where}: no key {key!r}; {name} has {', '.join(sorted(value)) or 'no keys'}")
        value, name = value[part], part
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key}: expected a text, found {repr(value)[:60]}")
    if not may_be_empty and is_blank(value):
        raise ValueError(f"{where}: {key} is empty; a pair of valid or test has text on both sides")
    return value
