"""Lines of files and streams: where they end, and what is said of bytes that are no text."""

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands import lines as command_lines
from pipeline.commands.lines import in_groups, lines_of
from pipeline.data.records import read_lines
from pipeline.text.lines import numbered_lines


def lines(data: bytes) -> list[tuple[int, str]]:
    return list(numbered_lines(BytesIO(data), lambda number, error: f"{number}: {error.object[error.start]:#x}"))


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"]))))
def test_what_was_joined_by_line_feeds_is_read_as_it_was_whatever_else_is_in_it(texts: list[str]) -> None:
    data = "".join(f"{text}\n" for text in texts).encode()
    assert lines(data) == list(enumerate(texts, start=1))


def test_a_mark_at_the_beginning_and_carriage_returns_at_the_ends_are_no_text() -> None:
    data = "\ufeffone\r\ntwo\u2028\x85\x0btwo\r\r\n\n\ufeffthree\rfour".encode()
    assert lines(data) == [(1, "one"), (2, "two\u2028\x85\x0btwo"), (3, ""), (4, "\ufeffthree\rfour")]
    assert lines(b"") == []


def test_lines_are_given_one_at_a_time_and_a_bad_one_is_told_when_it_is_reached() -> None:
    found = numbered_lines(BytesIO(b"good\nb\xffd\n"), lambda number, error: f"line {number}, byte {error.start}")
    assert next(found) == (1, "good")
    with pytest.raises(ValueError, match=r"^line 2, byte 1$"):
        next(found)


def test_lines_come_in_groups_each_with_its_first_number_and_long_ones_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_lines, "_MOST_CHARACTERS", 10)
    long, nearly = "d" * 10, "f" * 9
    waiting = iter(["a", "", "c", long, "e", nearly, "g", "h", "i", "j"])
    found = in_groups(waiting, 3, len)
    assert next(found) == (1, ["a", "", "c"])
    # A group is given before a line of the next one is asked for.
    assert next(waiting) == long
    assert list(found) == [(4, ["e", nearly]), (6, ["g", "h", "i"]), (9, ["j"])]
    assert list(in_groups([long, "e"], 3, len)) == [(1, [long]), (2, ["e"])]
    assert list(in_groups([], 3, len)) == []


@pytest.mark.parametrize(
    ("data", "number", "place"), [(b"\xef\xbb\xbfab\xff\n", 1, 2), (b"ab\n\xff\n", 2, 0), (b"ab\n\ncd\xff", 3, 2)]
)
def test_a_file_for_the_data_and_a_file_for_a_command_have_the_same_lines_and_the_same_bad_one(
    tmp_path: Path, data: bytes, number: int, place: int
) -> None:
    """The byte that is named is the bad one also behind a byte-order mark, which is no part of the line."""
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    before: list[str] = []
    with pytest.raises(ValueError) as of_data:
        before.extend(line for _, line in read_lines(path))
    assert str(of_data.value) == f"{path}:{number}: not UTF-8: byte 0xff at position {place} of the line"
    with pytest.raises(ValueError) as of_command:
        list(lines_of(path))
    assert str(of_command.value) == f"{path}, line {number}: not UTF-8"
    path.write_bytes(data.replace(b"\xff", "\u00ff\r".encode()))
    assert [line for _, line in read_lines(path)] == list(lines_of(path))
