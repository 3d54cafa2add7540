"""The table for terminals and for the README says what metrics.json says."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.artifacts import write_json
from pipeline.report.table import BEGIN, END, markdown_table, plain_table, read_results, write_readme

ROOT = Path(__file__).parents[2]


def row(order: int, **shown: str) -> dict[str, Any]:
    return {
        "title": f"Title {order}",
        "measure": "nats",
        "command": "dvc repro sft",
        "order": order,
        "shown": {"value": "1.00", "baselines": "", "floor": "", "verdict": "", **shown},
    }


ROWS = [row(0, floor="≥ 2.00", verdict="missed by 1.00"), row(1, baselines="xz 1.76"), row(2, verdict="not run")]


def test_rows_come_in_the_order_of_the_chain_whatever_their_names(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"results": {"c": ROWS[0], "b": ROWS[1], "a": ROWS[2]}})
    assert read_results(tmp_path) == ROWS


def test_without_a_report_the_message_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics.json: no report yet; make it with: dvc repro"):
        read_results(tmp_path)


def test_the_plain_table_shows_misses_and_lines_up() -> None:
    assert plain_table(ROWS).splitlines() == [
        "Result         Ours  Beside it  Floor",
        "-" * len("Title 0: nats  1.00             ≥ 2.00, missed by 1.00"),
        "Title 0: nats  1.00             ≥ 2.00, missed by 1.00",
        "Title 1: nats  1.00  xz 1.76",
        "Title 2: nats  1.00             not run",
    ]


def test_the_readme_is_changed_between_the_markers_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    write_readme(readme, ROWS)
    first = readme.read_text()
    assert first == f"# Title\n\n{BEGIN}\n{markdown_table(ROWS)}\n{END}\n\nrest\n"
    assert "| Title 0: nats | 1.00 |  | ≥ 2.00, missed by 1.00 | `dvc repro sft` |" in first
    write_readme(readme, ROWS)
    assert readme.read_text() == first


def test_a_readme_without_the_markers_is_left_alone_and_named(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    with pytest.raises(ValueError, match=r"README.md: expected the lines"):
        write_readme(readme, ROWS)
    assert readme.read_text() == "# Title\n"


def committed(path: str) -> bytes:
    """A file as it is in the last commit: a run of the chain on another machine may change the last digits."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository: what was committed is not known")
    return subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, check=True, capture_output=True).stdout


def test_the_committed_table_of_the_readme_is_that_of_the_committed_report(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(committed("reports/cpu/metrics.json"))
    table = committed("README.md").decode().partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
    assert table == markdown_table(read_results(tmp_path)), "run `pipeline results --readme`"


@pytest.mark.parametrize("name", ["metrics.json", "headline.json"])
def test_the_committed_report_is_that_which_the_lock_records(name: str) -> None:
    outs = yaml.safe_load(committed("dvc.lock"))["stages"]["report"]["outs"]
    (recorded,) = (out["md5"] for out in outs if out["path"] == f"reports/cpu/{name}")
    assert hashlib.md5(committed(f"reports/cpu/{name}"), usedforsecurity=False).hexdigest() == recorded
