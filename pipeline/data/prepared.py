"""Reads what `prepare` wrote: data/<profile>/prepared/<kind>/{train,valid,test}.jsonl -> records.

Every ValueError names the file and the line. Groups served the split and are not stored: a record read here has its id
as its group.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pipeline.data.records import (
    Conversation,
    Document,
    Labelled,
    Message,
    Pair,
    Rated,
    Record,
    Role,
    Tagged,
    read_rows,
)
from pipeline.text.tags import read_tags

R = TypeVar("R", bound=Record)


def read_documents(path: Path) -> tuple[Document, ...]:
    """Documents of running text."""
    return tuple(stream_documents(path))


def stream_documents(path: Path) -> Iterator[Document]:
    """The same, one at a time."""
    return _stream(path, lambda row: Document(**{key: _text(row, key) for key in ("id", "title", "source", "text")}))


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Sentences with their translations."""
    return tuple(stream_pairs(path))


def stream_pairs(path: Path) -> Iterator[Pair]:
    """The same, one at a time."""
    keys = ("id", "src", "tgt", "source")
    return _stream(
        path,
        lambda row: Pair(
            **{key: _text(row, key) for key in keys},
            group=_text(row, "id"),
            reference=_text(row, "reference") if "reference" in row else "",
        ),
    )


def read_rated(path: Path) -> tuple[Rated, ...]:
    """Texts with the ratings of people."""
    return tuple(_stream(path, _rated))


def read_labelled(path: Path) -> tuple[Labelled, ...]:
    """Texts, or pairs of texts, of a task."""
    return tuple(_stream(path, _labelled))


def read_tagged(path: Path) -> tuple[Tagged, ...]:
    """Sentences whose words have tags."""
    return tuple(_stream(path, _tagged))


def read_conversations(path: Path) -> tuple[Conversation, ...]:
    """Conversations that end with an answer of the assistant."""
    return tuple(stream_conversations(path))


def stream_conversations(path: Path) -> Iterator[Conversation]:
    """The same, one at a time."""
    return _stream(path, _conversation)


def _stream(path: Path, parse: Callable[[dict[str, Any]], R]) -> Iterator[R]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run the stage prepare")
    is_empty = True
    for record in _parsed(path, parse):
        is_empty = False
        yield record
    if is_empty:
        raise ValueError(f"{path}: empty file")


def _parsed(path: Path, parse: Callable[[dict[str, Any]], R]) -> Iterator[R]:
    for number, row in enumerate(read_rows(path), start=1):
        try:
            yield parse(row)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected a text, found {value!r}")
    return value


def _rated(row: dict[str, Any]) -> Rated:
    mean, ratings = row.get("mean"), row.get("ratings")
    if not isinstance(mean, int | float) or not -4 <= mean <= 4:
        raise ValueError(f"mean: expected a number from -4 to 4, found {mean!r}")
    if not isinstance(ratings, list) or not all(isinstance(rating, int) for rating in ratings):
        raise ValueError(f"ratings: expected a list of whole numbers, found {ratings!r}")
    return Rated(
        id=_text(row, "id"),
        text=_text(row, "text"),
        mean=float(mean),
        ratings=tuple(ratings),
        domain=_text(row, "domain"),
        group=_text(row, "id"),
    )


def _labelled(row: dict[str, Any]) -> Labelled:
    second = _text(row, "second") if row.get("second") is not None else None
    return Labelled(id=_text(row, "id"), text=_text(row, "text"), second=second, label=_text(row, "label"))


def _tagged(row: dict[str, Any]) -> Tagged:
    words, tags = (_texts(row, key) for key in ("words", "tags"))
    if len(words) != len(tags) or not words:
        raise ValueError(f"tags: expected one a word, found {len(tags)} for {len(words)} words")
    read_tags(tags, "iob2")
    return Tagged(id=_text(row, "id"), words=words, tags=tags)


def _texts(row: dict[str, Any], key: str) -> tuple[str, ...]:
    values = row.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key}: expected a list of texts, found {values!r}")
    return tuple(values)


def _conversation(row: dict[str, Any]) -> Conversation:
    values = row.get("messages")
    if not isinstance(values, list):
        raise ValueError(f"messages: expected a list, found {values!r}")
    messages = tuple(_message(value) for value in values)
    order = " ".join(message.role for message in messages)
    if len(messages) < 2 or messages[-1].role != "assistant" or messages[-2].role == "assistant":
        raise ValueError(f"messages: expected a prompt and then an answer of the assistant, found {order!r}")
    return Conversation(id=_text(row, "id"), source=_text(row, "source"), messages=messages, group=_text(row, "id"))


def _message(value: Any) -> Message:
    if not isinstance(value, dict) or value.get("role") not in get_args(Role):
        raise ValueError(f"messages: expected a role of {get_args(Role)}, found {value!r}")
    content = _text(value, "content")
    if not content.strip():
        raise ValueError(f"messages: the {value['role']} message is empty")
    return Message(role=value["role"], content=content)
