"""Lines of text from bytes.

A line ends at a line feed and nowhere else: a text may hold any other sign that some programs take for a line's end.
"""

from collections.abc import Callable, Iterable, Iterator


def numbered_lines(
    stream: Iterable[bytes], fault: Callable[[int, UnicodeDecodeError], str]
) -> Iterator[tuple[int, str]]:
    """The lines of a binary stream of UTF-8, one at a time, with their numbers from 1.

    A byte-order mark at the beginning, and the line feed with the carriage returns before it, are no part of a line.
    What `fault` says of the number and the error of a line that is not UTF-8 becomes a ValueError.
    """
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(fault(number, error)) from error
        yield number, text.rstrip("\r\n")
