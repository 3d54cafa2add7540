"""The table of results as text: for a terminal, and for the README between two markers.

Everything comes from the report's metrics.json, so that what is shown is what was measured.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json, write_text

METRICS, HEADLINE, PAGE = "metrics.json", "headline.json", "index.html"
BEGIN, END = "<!-- results: written by `pipeline results --readme` -->", "<!-- end of results -->"

_HEAD = ("Result", "Ours", "Beside it", "Floor")


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The rows of a report, in their order; ValueError when there is no report."""
    if not (folder / METRICS).is_file():
        raise ValueError(f"{folder / METRICS}: no report yet; make it with: dvc repro")
    rows = read_json(folder / METRICS)["results"]
    return sorted(rows.values(), key=lambda row: int(row["order"]))


def plain_table(rows: Sequence[dict[str, Any]]) -> str:
    """Columns of text under a head."""
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """A table for the README, with the command of each row."""
    lines = [f"| {' | '.join((*_HEAD, 'Command'))} |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join((*_cells(row), _code(row['command'])))} |" for row in rows]
    return "\n".join(lines)


def write_readme(readme: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Puts the table between the markers; ValueError when they are missing."""
    write_between(readme, BEGIN, markdown_table(rows), END)


def write_between(file: Path, begin: str, text: str, end: str) -> None:
    """Replaces what stands between two lines of a file; ValueError when they are missing."""
    before, found_begin, rest = file.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{file}: expected the lines {begin!r} and {end!r}")
    write_text(file, f"{before}{begin}\n{text}\n{end}{after}")


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    shown = row["shown"]
    floor = f"{shown['floor']}, {shown['verdict']}" if shown["floor"] else shown["verdict"]
    return f"{row['title']}: {row['measure']}", shown["value"], shown["baselines"], floor


def _code(command: str) -> str:
    return f"`{command}`"
