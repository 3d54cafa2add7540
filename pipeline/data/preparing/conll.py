"""Column files of the CoNLL shared tasks: a word a line, its tag in a column, an empty line between sentences.

Tags of any scheme become IOB2. What a file says wrongly is named with its line and never guessed at.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from pipeline.config import Config
from pipeline.data.records import SPLITS, Tagged, read_lines, write_records
from pipeline.text.tags import Reading, TagFault, lenient_entities, read_tags, write_tags

Separator = Literal["whitespace", "tab"]
DOCUMENT = "-DOCSTART-"
"""First column of the line that begins a document; it is no word."""
_BLANKS = re.compile("[ \t]+")


def _not_zero(number: int) -> int:
    if number == 0:
        raise ValueError("columns are counted from 1, or from the last with -1")
    return number


Column = Annotated[int, AfterValidator(_not_zero)]


class ConllSource(Config):
    """Column files with entities, one a split."""

    kind: Literal["conll"]
    source: str
    """Folder below raw/."""
    train: str
    """File of the training sentences, below the source's folder."""
    valid: str
    """File of the sentences that training is watched on."""
    test: str = ""
    """File of the test sentences; empty for none."""
    scheme: Reading
    """How the tags mark entities: iob1 (CoNLL-2003 as it was published), iob2, bioes (IOBES), bilou (BILUO). What a
    scheme does not allow is an error; with lenient nothing is: tags are read as conlleval does, and those that IOB2 has
    otherwise are counted."""
    separator: Separator = "whitespace"
    """What stands between columns: any run of spaces and tabs, or exactly one tab, so that words may hold spaces."""
    word_column: Column = 1
    """Column of the word, from 1; -1 is the last."""
    tag_column: Column = -1
    """Column of the tag."""
    comment: str = ""
    """Beginning of lines that are dropped where they stand before the first word of a sentence, such as `# `; empty
    for none: many corpora have words that begin with #."""
    types: tuple[str, ...] = ()
    """The types of entities that are allowed; empty for those of the training file."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line with a word."""

    number: int
    """Line of the file, from 1."""
    columns: tuple[str, ...]


def columns_of(line: str, separator: Separator) -> list[str]:
    """The columns of a line; none of an empty one. A no-break space and its like are part of a word."""
    if not line.strip(" \t"):
        return []
    return line.split("\t") if separator == "tab" else _BLANKS.split(line.strip(" \t"))


def sentences_of(
    lines: Iterable[tuple[int, str]], *, name: str, separator: Separator, comment: str = ""
) -> Iterator[list[Row]]:
    """The sentences among the numbered lines of a file; lines of documents and comments are dropped.

    ValueError names the line that has another number of columns than the first.
    """
    sentence: list[Row] = []
    first: Row | None = None
    for number, line in lines:
        columns = columns_of(line, separator)
        is_border = not columns or columns[0] == DOCUMENT
        if is_border or (comment and not sentence and line.startswith(comment)):
            if sentence:
                yield sentence
            sentence = []
            continue
        row = Row(number, tuple(columns))
        first = first or row
        if len(columns) != len(first.columns):
            raise ValueError(
                f"{name}:{number}: found {len(columns)} columns, line {first.number} has {len(first.columns)}: "
                f"{line[:60]!r}"
            )
        sentence.append(row)
    if sentence:
        yield sentence


def column_at(column: int, num_columns: int, *, name: str, key: str) -> int:
    """The index of a column counted from 1 or from -1; ValueError names the `key` that asks for one too many."""
    index = column - 1 if column > 0 else num_columns + column
    if not 0 <= index < num_columns:
        raise ValueError(f"{key}: found {column}, the lines of {name} have {num_columns} columns")
    return index


def _read(path: Path, source: ConllSource, types: Collection[str]) -> Iterator[tuple[Tagged, int]]:
    """The sentences of a file, each with the number of its tags that IOB2 has otherwise; `types` are the allowed types,
    empty for all.

    ValueError names file and line of a fault, and a file without a sentence.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    rows: list[Row] = []
    for rows in sentences_of(read_lines(path), name=str(path), separator=source.separator, comment=source.comment):
        yield _sentence(path, source, rows, types)
    if not rows:
        raise ValueError(f"{path}: no sentence in this file")


def _sentence(path: Path, source: ConllSource, rows: list[Row], types: Collection[str]) -> tuple[Tagged, int]:
    width = len(rows[0].columns)
    word_at = column_at(source.word_column, width, name=str(path), key="word_column")
    tag_at = column_at(source.tag_column, width, name=str(path), key="tag_column")
    if word_at == tag_at:
        raise ValueError(f"{path}:{rows[0].number}: column {word_at + 1} would be both word and tag")
    for row in rows:
        if not row.columns[word_at].strip(" "):
            raise ValueError(f"{path}:{row.number}: the word is empty, in column {word_at + 1}")
    words = tuple(row.columns[word_at] for row in rows)
    try:
        tags = [row.columns[tag_at] for row in rows]
        entities = lenient_entities(tags) if source.scheme == "lenient" else read_tags(tags, source.scheme)
    except TagFault as error:
        number = rows[min(error.position, len(rows) - 1)].number
        raise ValueError(f"{path}:{number}: {error}") from error
    for entity in entities:
        if types and entity.kind not in types:
            raise ValueError(
                f"{path}:{rows[entity.start].number}: entities of type {entity.kind!r} are not allowed; "
                f"allowed are {sorted(types)}"
            )
    written = write_tags(entities, len(words), "iob2")
    num_rewritten = sum(one != other for one, other in zip(tags, written, strict=True))
    return Tagged(f"{path.name}:{rows[0].number}", words, tuple(written)), num_rewritten


def prepare_conll(source: ConllSource, folder: Path, out: Path) -> tuple[tuple[str, ...], dict[str, dict[str, int]]]:
    """Writes the splits of a task whose files are below `folder` into `out`.

    Returns the types of its entities, in alphabetical order, and sentences, words and entities of each split, of the
    scheme lenient also how many tags IOB2 has otherwise. A type
    that the training file has not, and a training file without an entity, are ValueErrors.
    """
    types = source.types
    counts: dict[str, dict[str, int]] = {}
    for split, file in zip(SPLITS, (source.train, source.valid, source.test), strict=True):
        if not file:
            continue
        read = list(_read(folder / file, source, types))
        sentences = [sentence for sentence, _ in read]
        types = types or tuple(sorted({tag[2:] for one in sentences for tag in one.tags if tag != "O"}))
        if not types:
            raise ValueError(f"{folder / file}: no entity to learn from; every tag is O")
        counts[split] = {
            "records": write_records(out / f"{split}.jsonl", sentences),
            "words": sum(len(one.words) for one in sentences),
            "entities": sum(tag.startswith("B-") for one in sentences for tag in one.tags),
        }
        if source.scheme == "lenient":
            counts[split]["tags_rewritten"] = sum(number for _, number in read)
    return tuple(sorted(types)), counts
