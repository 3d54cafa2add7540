"""The runs of a published number shared out among machines: one report, which says what each was made with."""

import shutil
from pathlib import Path

import pytest

from pipeline.numbers import open_number, read_reports
from pipeline.reproduce import ORDER, reproduce
from tests.project.toy_number import ROOT, Stages, write_toy_repository, write_yaml


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    write_toy_repository(tmp_path)
    return tmp_path


def test_seeds_shared_out_among_machines_come_together_in_the_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.reproduce.versions", lambda: {"torch": "1"})
    here = Stages(30.0)
    assert reproduce(open_number("toy", ORDER), here, only=["seed-1"]) == 0
    assert here.ran == ["fetch", "tokenize", "translate/seed-1"]
    # Another machine has the committed report, and nothing of what the first one made.
    shutil.rmtree(folder / "runs")
    shutil.rmtree(folder / ".pipeline")
    monkeypatch.setattr("pipeline.reproduce.versions", lambda: {"torch": "2"})
    there = Stages(33.0)
    assert reproduce(open_number("toy", ORDER), there, only=["seed-2"]) == 0
    assert there.ran == ["fetch", "tokenize", "translate/seed-2"]
    (report,) = read_reports()
    assert report["ours"] == [30.0, 33.0] and report["reached"] and report["flops"] == 2e12
    assert report["num_runs"] == {"finished": 2, "planned": 2}
    made = report["made"]
    assert [made[seed]["versions"] for seed in ("seed-1", "seed-2")] == [{"torch": "1"}, {"torch": "2"}]
    assert made["seed-1"]["seconds"] == report["seconds_by_stage"]["translate/seed-1"] == 100.0
    assert made["seed-1"]["code"] == made["seed-2"]["code"]


def test_figures_of_two_versions_of_the_code_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce(open_number("toy", ORDER), Stages(30.0), only=["seed-1"])
    assert "| 30.00 (1 of 2) |" in (folder / "README.md").read_text()
    (folder / "pipeline").unlink()
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "pipeline/stages/translate.py").open("a") as code:
        code.write("# changed\n")
    reproduce(open_number("toy", ORDER), Stages(33.0), only=["seed-2"])
    assert "| 31.50 ± 2.12 (2, 2 versions of the code) |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("changed", ["translate/seed-1", "tokenize"])
def test_a_report_keeps_no_figure_of_another_configuration(
    changed: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reproduce(open_number("toy", ORDER), Stages(30.0), only=["seed-1"])
    write_yaml(folder / f"conf/numbers/toy/{changed}.yaml", {"a": 2})
    reproduce(open_number("toy", ORDER), Stages(33.0), only=["seed-2"])
    (report,) = read_reports()
    assert report["ours"] == [33.0] and report["num_runs"]["finished"] == 1 and report["reached"] is None
    assert "toy.json: seed-1 was made with another configuration, and is left out" in caplog.text


def test_a_call_for_all_runs_keeps_nothing_that_was_not_made_here(folder: Path) -> None:
    reproduce(open_number("toy", ORDER), Stages(30.0), only=["seed-2"])
    shutil.rmtree(folder / ".pipeline")
    cut = Stages(33.0)
    cut.codes["translate/seed-2"] = 143
    assert reproduce(open_number("toy", ORDER), cut) == 143
    assert read_reports()[0]["ours"] == [33.0]


def test_a_run_that_the_number_does_not_have_is_named_with_those_that_it_has(folder: Path) -> None:
    stages = Stages()
    with pytest.raises(ValueError, match="toy: no run seed-3; there are seed-1, seed-2"):
        reproduce(open_number("toy", ORDER), stages, only=["seed-1", "seed-3"])
    assert stages.ran == []
