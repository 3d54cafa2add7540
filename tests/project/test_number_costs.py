"""What a published number took, and what it was made with and on."""

import shutil
from pathlib import Path

import pytest

from pipeline.numbers.made import NO_RUNTIME, versions
from pipeline.numbers.number import open_number
from pipeline.numbers.report import read_reports
from pipeline.numbers.table import markdown_table
from pipeline.reproduce import reproduce
from tests.project.toy_number import Stages, write_yaml


def test_the_versions_are_those_that_a_figure_was_measured_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reproduce.versions", lambda: {"torch": "1"})
    reproduce(open_number("toy"), Stages(30.0, 33.0))
    monkeypatch.setattr("pipeline.reproduce.versions", lambda: {"torch": "2"})
    reproduce(open_number("toy"), Stages())
    (report,) = read_reports()
    assert report["versions"] == {"torch": "1"}


def test_the_threads_and_the_runtime_that_a_time_was_measured_with_are_in_the_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for limit, expected, runtime in (("3", 3, ""), ("99", 8, "ddp_cpu"), ("", 8, ""), ("4,2", 4, "")):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        monkeypatch.setenv("PIPELINE_RUNTIME", runtime)
        write_yaml(folder / "conf/numbers/toy/tokenize.yaml", {"a": limit})
        reproduce(open_number("toy"), Stages(30.0, 33.0))
        (report,) = read_reports()
        asked = f"PIPELINE_RUNTIME={runtime} " if runtime else ""
        assert report["command"] == f"{asked}make reproduce NUMBER=toy DATA=FOLDER"
        found = report["machine"]
        assert found.pop("processor")
        assert found == {"cpus": 8, "threads": expected, "runtime": runtime or NO_RUNTIME}


def test_a_run_that_is_cut_off_leaves_the_finished_seeds_and_counts_all_its_time(folder: Path) -> None:
    cut = Stages(30.0)
    cut.codes["translate/seed-2"] = 143
    assert reproduce(open_number("toy"), cut) == 143
    (report,) = read_reports()
    assert report["ours"] == [30.0] and report["spread"] is None
    assert report["num_runs"] == {"finished": 1, "planned": 2}
    # 30 is below 31, but the other seed may still bring the mean up.
    assert report["reached"] is None and "not all seeds yet" in markdown_table([report])
    rest = Stages(33.0)
    assert reproduce(open_number("toy"), rest) == 0
    assert rest.ran == ["translate/seed-2"]
    (report,) = read_reports()
    assert report["seconds_by_stage"]["translate/seed-2"] == 200.0


def test_the_time_before_a_change_that_a_cut_off_training_does_not_notice_counts_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of a stage before it may change and give the same bytes: the training then goes on."""

    def seconds_after(change: dict[str, object], stage: str) -> float:
        cut = Stages(30.0)
        cut.codes["translate/seed-2"] = 143
        reproduce(open_number("toy"), cut)
        write_yaml(folder / f"conf/numbers/toy/{stage}.yaml", change)
        assert reproduce(open_number("toy"), Stages(30.0, 33.0)) == 0
        (report,) = read_reports()
        shutil.rmtree(folder / ".pipeline")
        seconds: float = report["seconds_by_stage"]["translate/seed-2"]
        return seconds

    assert seconds_after({"a": 2}, "tokenize") == 200.0
    assert seconds_after({"a": 3}, "translate/seed-2") == 100.0, "its own configuration: it begins anew"
    monkeypatch.setenv("PIPELINE_RESUME", "any")
    assert seconds_after({"a": 4}, "translate/seed-2") == 200.0


def test_the_machine_and_the_runtime_of_the_stages_before_the_runs_are_in_the_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_RUNTIME", "gpu")
    cut = Stages(30.0)
    cut.codes["translate/seed-1"] = 143
    assert reproduce(open_number("toy"), cut) == 143
    monkeypatch.delenv("PIPELINE_RUNTIME")
    assert reproduce(open_number("toy"), Stages(30.0, 33.0)) == 0
    (report,) = read_reports()
    assert {name: one["runtime"] for name, one in report["machine_before"].items()} == {
        "fetch": "gpu",
        "tokenize": "gpu",
    }
    assert {one["machine"]["runtime"] for one in report["made"].values()} == {NO_RUNTIME}
    assert report["command"] == "PIPELINE_RUNTIME=gpu make reproduce NUMBER=toy DATA=FOLDER"


def test_a_package_that_this_machine_does_not_have_is_left_out_of_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.numbers.made._PACKAGES", ("torch", "a-package-that-nobody-has"))
    assert versions().keys() == {"python", "torch"}
