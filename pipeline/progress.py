"""Progress of a loop: a bar on a terminal, a line of the log now and then elsewhere; nothing for a short loop.

On standard error alone, so that output can be piped.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_log = logging.getLogger(__name__)
_PATIENCE = 3.0
"""Seconds within which a loop may end unseen."""
_PAUSE = 10.0
"""Seconds between two lines of the log."""


def progress(
    items: Iterable[T],
    *,
    name: str,
    unit: str,
    total: int | None = None,
    size: Callable[[T], int] = lambda item: 1,
    is_shown: bool = True,
) -> Iterator[T]:
    """The items as they are, while speed and, with a `total`, remaining time are shown in `unit`s.

    An item counts for `size` units once the loop asks for the next. Only one rank of several may have it shown.
    """
    if not is_shown:
        yield from items
    elif sys.stderr.isatty():
        # Below another bar, as that of a training, it leaves nothing behind.
        with tqdm(total=total, desc=name, unit=f" {unit}", delay=_PATIENCE, leave=None) as bar:
            for item in items:
                yield item
                bar.update(size(item))
    else:
        yield from _logged(items, name, unit, total, size)


def _logged(items: Iterable[T], name: str, unit: str, total: int | None, size: Callable[[T], int]) -> Iterator[T]:
    started = time.monotonic()
    due, done, has_spoken = started + _PATIENCE, 0, False
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now >= due and done != total:
            due, has_spoken = now + _PAUSE, True
            speed = done / (now - started)
            of = "" if total is None else f"/{total:,}"
            left = "" if total is None or not speed else f"  {(total - done) / speed:.0f} s left"
            _log.info("%s %s%s %s  %.1f %s/s%s", name, f"{done:,}", of, unit, speed, unit, left)
    if has_spoken:
        _log.info("%s %s %s in %.0f s", name, f"{done:,}", unit, time.monotonic() - started)
