"""Lines in and lines out: what the commands read and write, as streams, with every fault named."""

import os
import signal
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO, TypeVar

from pipeline.chunks import chunks
from pipeline.text.lines import numbered_lines

Item = TypeVar("Item")

STANDARD_INPUT = "standard input"
_MOST_CHARACTERS = 1_000_000
"""A group of lines ends here at the latest."""


def lines_of(file: Path | None) -> Iterator[str]:
    """The texts of `numbered_lines`, of a file or of standard input; ValueError names the line that is not UTF-8."""
    name = str(file) if file else STANDARD_INPUT
    with file.open("rb") if file else os.fdopen(os.dup(sys.stdin.fileno()), "rb") as stream:
        for _, line in numbered_lines(stream, lambda number, _: f"{name}, line {number}: not UTF-8"):
            yield line


def in_groups(
    items: Iterable[Item], most_at_once: int, num_characters: Callable[[Item], int]
) -> Iterator[tuple[int, list[Item]]]:
    """Lines, or what was read from them, in groups of so many, fewer where they are very long.

    Each comes with the number of its first item, from 1. A ValueError of `items` is raised behind the group of those
    before it: these are answered.
    """
    fault: list[ValueError] = []

    def before_fault() -> Iterator[Item]:
        try:
            yield from items
        except ValueError as error:
            fault.append(error)

    first = 1
    for group in chunks(before_fault(), num_characters, size_at_once=_MOST_CHARACTERS, most_at_once=most_at_once):
        yield first, group
        first += len(group)
    if fault:
        raise fault[0]


def in_place(
    answer: Callable[[Sequence[str]], list[str]], lines: Sequence[str], *, first: int, name: str
) -> Iterator[str]:
    """Answers in the places of their lines; an empty line is no text and stays empty.

    Where a line is refused, those before it are answered, and then ValueError names it; `first` is the number of the
    first line, `name` what the lines come from.
    """
    filled = [place for place, line in enumerate(lines) if line.strip()]
    texts = [lines[place] for place in filled]
    fault: ValueError | None = None
    try:
        found = answer(texts) if texts else []
    except ValueError as error:
        fault, found = error, []
        # So many texts are answered together, and no more.
        num_answered = bisect_left(range(1, len(texts)), True, key=lambda number: _is_refused(answer, texts[:number]))
        if num_answered:
            found = answer(texts[:num_answered])
        try:
            answer(texts[: num_answered + 1])
        except ValueError as own:
            fault = own
        lines = lines[: filled[num_answered]]
    said = iter(found)
    for line in lines:
        yield next(said) if line.strip() else ""
    if fault:
        raise ValueError(f"{name}, line {first + len(lines)}: {fault}") from fault


def _is_refused(answer: Callable[[Sequence[str]], list[str]], texts: Sequence[str]) -> bool:
    try:
        answer(texts)
    except ValueError:
        return True
    return False


def check_argument(text: str) -> None:
    """ValueError for an argument whose bytes were no text: Python then hands on half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"an argument is not UTF-8: {text[:60]!r}") from error


def count_lines(file: Path | None) -> int | None:
    """How many lines a file has; None where that takes reading what can be read only once."""
    if file is None or not file.is_file():
        return None
    with file.open("rb") as stream:
        return sum(1 for _ in stream)


def one_line(text: str) -> str:
    """The text without what would end its line."""
    return text.replace("\r", " ").replace("\n", " ")


def typed(prompt: str) -> Iterator[str]:
    """Lines that a person types, until the end of input; empty ones are asked again."""
    while True:
        try:
            line = input(prompt)
        except EOFError:
            sys.stdout.write("\n")
            return
        if line.strip():
            yield line


@contextmanager
def written(file: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there once everything is written, and never in part.

    An error or a signal to end leaves what was there before, and what was written until then in a file that a note of
    the exception names. A device or a pipe is written to as it stands.
    """
    if file is None:
        yield sys.stdout
        sys.stdout.flush()
    elif file.exists() and not file.is_file() and not file.is_dir():
        with file.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
    else:
        with replacing(file, is_kept=True) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def replacing(file: Path, *, is_kept: bool = False) -> Iterator[Path]:
    """A path beside `file` that takes its place when the block ends well, and vanishes when it does not.

    With `is_kept` what was written to it before an exception stays, under a name that a note of the exception says.
    """
    target = file.resolve()
    if not target.parent.is_dir():
        raise ValueError(f"{file}: no folder {file.parent} to write into")
    if target.is_dir():
        raise ValueError(f"{file}: a folder, expected a file to write")
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    with _ended_by_signals():
        try:
            yield temporary
            temporary.replace(target)
        except BaseException as error:
            if is_kept and temporary.is_file() and temporary.stat().st_size:
                kept = target.with_name(f"{target.name}.{os.getpid()}.partial")
                temporary.replace(kept)
                error.add_note(f"what was written before is in {kept}")
            raise
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A signal to end raises SystemExit, so that what was begun is cleared away."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
    for number in (int(signal.SIGTERM), int(signal.SIGHUP)):
        before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
