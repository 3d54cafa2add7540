"""Items of a stream, some at a time: as many as are worth one call, and never more than memory should hold."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def chunks(
    items: Iterable[Item], size: Callable[[Item], int], *, size_at_once: int, most_at_once: int | None = None
) -> Iterator[list[Item]]:
    """Consecutive items, each chunk up to the item with which their sizes reach `size_at_once` or it has so many.

    A chunk is given before an item of the next one is asked for. The last one is what is left; none is empty.
    """
    chunk: list[Item] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += size(item)
        if held >= size_at_once or len(chunk) == most_at_once:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
