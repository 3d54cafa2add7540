"""What `pipeline tag` does: entities in running text, a line a text, or a further column of a column file.

A model whose labels are no tags of entities gives every word one label.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import PositiveInt

from pipeline.commands.lines import in_groups
from pipeline.commands.texts import Answerer, wrong_kind
from pipeline.config import Config
from pipeline.data.preparing.conll import DOCUMENT, Separator, columns_of
from pipeline.inference.models import open_model
from pipeline.inference.tagger import FoundEntity, Tagger
from pipeline.text.tags import Scheme, write_tags

_SENTENCES_AT_ONCE = 256


class Columns(Config):
    """How a column file is laid out, and how its tags are to be written."""

    word_column: PositiveInt
    """Column of the word, from 1."""
    separator: Separator
    """What stands between columns."""
    comment: str
    """Beginning of lines that are no words where they stand before a sentence; empty for none."""
    scheme: Scheme
    """The scheme of the tags."""
    name: str
    """Of the file, for messages."""


def opened_tagger(folder: Path, device: torch.device) -> Tagger:
    """The tagger in a folder, on a device; ValueError for another kind of model."""
    model = open_model(folder, device)
    if not isinstance(model, Tagger):
        raise wrong_kind(folder, "a tagger", model)
    return model


def tagging(model: Tagger, *, as_json: bool, tokenised: bool) -> Answerer:
    """Each text with brackets around its entities, or a list of these as JSON."""
    shown: Callable[[str, Sequence[FoundEntity]], str] = (lambda _, found: as_list(found)) if as_json else bracketed

    def answer(texts: Sequence[str]) -> list[str]:
        found = model.find(texts, tokenised=tokenised)
        return [shown(text, one) for text, one in zip(texts, found, strict=True)]

    return answer


def bracketed(text: str, found: Sequence[FoundEntity]) -> str:
    """The text with `[TYPE PROBABILITY ...]` around its entities."""
    parts, place = [], 0
    for one in found:
        parts.append(f"{text[place : one.start]}[{one.kind} {one.probability:.2f} {one.text}]")
        place = one.stop
    return "".join(parts) + text[place:]


def as_list(found: Sequence[FoundEntity]) -> str:
    """The entities as JSON."""
    rows = [one.as_row() | {"probability": round(one.probability, 4)} for one in found]
    return json.dumps(rows, ensure_ascii=False)


@dataclass
class _Sentence:
    """Lines up to one without a word, which is the last of them."""

    lines: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Which of the lines these words are in."""


def tag_columns(model: Tagger, lines: Iterable[str], columns: Columns) -> Iterator[str]:
    """Every line of a column file with the tag of its word as a further column, as conlleval reads it.

    Lines without a word stay as they are, but those of documents, which get an O. The scheme is that of tags: plain
    labels stand as they are. ValueError names a line that has too few columns; all sentences before it are given.
    """
    for _, group in in_groups(_sentences(lines, columns), _SENTENCES_AT_ONCE, lambda one: sum(map(len, one.lines))):
        filled = [sentence for sentence in group if sentence.words]
        found = iter(model.tag([sentence.words for sentence in filled]))
        for sentence in group:
            said: list[str] = []
            if sentence.words:
                entities = next(found).entities
                labels = [one.kind for one in entities]
                said = labels if model.is_plain else write_tags(entities, len(sentence.words), columns.scheme)
            tags = dict(zip(sentence.places, said, strict=True))
            for place, line in enumerate(sentence.lines):
                if place not in tags and columns_of(line, columns.separator)[:1] == [DOCUMENT]:
                    tags[place] = "O"
                yield _with_column(line, tags[place], columns) if place in tags else line


def _sentences(lines: Iterable[str], columns: Columns) -> Iterator[_Sentence]:
    sentence = _Sentence()
    for number, line in enumerate(lines, start=1):
        found = columns_of(line, columns.separator)
        sentence.lines.append(line)
        if not found or found[0] == DOCUMENT:
            yield sentence
            sentence = _Sentence()
        elif sentence.words or not columns.comment or not line.startswith(columns.comment):
            if len(found) < columns.word_column:
                raise ValueError(
                    f"{columns.name}, line {number}: no column {columns.word_column}, found {len(found)}: {line[:60]!r}"
                )
            sentence.words.append(found[columns.word_column - 1])
            sentence.places.append(len(sentence.lines) - 1)
    if sentence.lines:
        yield sentence


def _with_column(line: str, tag: str, columns: Columns) -> str:
    """The line with a further column, behind what stands between the others."""
    if columns.separator == "tab":
        return f"{line}\t{tag}"
    # Blanks at the end of a line would be a column more.
    return line.rstrip(" \t") + ("\t" if "\t" in line else " ") + tag
