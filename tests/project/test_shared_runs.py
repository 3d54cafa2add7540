"""The runs of a published number shared out among machines: one report, which says what each was made with."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.numbers.made import NO_RUNTIME
from pipeline.numbers.number import open_number
from pipeline.numbers.report import read_reports
from pipeline.reproduce import main, reproduce
from tests.project.toy_number import NUMBER, ROOT, Stages, write_yaml


def test_seeds_shared_out_among_machines_come_together_in_the_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.reproduce.versions", lambda: {"torch": "1"})
    here = Stages(30.0)
    assert reproduce(open_number("toy"), here, only=["seed-1"]) == 0
    assert here.ran == ["fetch", "tokenize", "translate/seed-1"]
    # Another machine has the committed report, and nothing of what the first one made.
    shutil.rmtree(folder / "runs")
    shutil.rmtree(folder / ".pipeline")
    monkeypatch.setattr("pipeline.reproduce.versions", lambda: {"torch": "2"})
    there = Stages(33.0)
    assert reproduce(open_number("toy"), there, only=["seed-2"]) == 0
    assert there.ran == ["fetch", "tokenize", "translate/seed-2"]
    (report,) = read_reports()
    assert report["ours"] == [30.0, 33.0] and report["reached"] and report["flops"] == 2e12
    assert report["num_runs"] == {"finished": 2, "planned": 2}
    made = report["made"]
    assert [made[seed]["versions"] for seed in ("seed-1", "seed-2")] == [{"torch": "1"}, {"torch": "2"}]
    assert made["seed-1"]["seconds"] == report["seconds_by_stage"]["translate/seed-1"] == 100.0
    assert made["seed-1"]["code"] == made["seed-2"]["code"]


def test_figures_of_two_versions_of_the_code_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reproduce(open_number("toy"), Stages(30.0), only=["seed-1"])
    assert "| 30.00 (1 of 2) |" in (folder / "README.md").read_text()
    (folder / "pipeline").unlink()
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "pipeline/stages/translate.py").open("a") as code:
        code.write("# changed\n")
    reproduce(open_number("toy"), Stages(33.0), only=["seed-2"])
    assert "| 31.50 ± 2.12 (2, 2 versions of the code) |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("changed", ["translate/seed-1", "tokenize"])
def test_a_report_keeps_no_figure_of_another_configuration(
    changed: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reproduce(open_number("toy"), Stages(30.0), only=["seed-1"])
    write_yaml(folder / f"conf/numbers/toy/{changed}.yaml", {"a": 2})
    reproduce(open_number("toy"), Stages(33.0), only=["seed-2"])
    (report,) = read_reports()
    assert report["ours"] == [33.0] and report["num_runs"]["finished"] == 1 and report["reached"] is None
    assert "toy.json: seed-1 was made with another configuration, and is left out" in caplog.text


def test_a_report_keeps_a_figure_when_nothing_but_another_run_has_changed(folder: Path) -> None:
    reproduce(open_number("toy"), Stages(30.0), only=["seed-1"])
    write_yaml(folder / "conf/numbers/toy/translate/seed-2.yaml", {"a": 2})
    reproduce(open_number("toy"), Stages(33.0), only=["seed-2"])
    assert read_reports()[0]["ours"] == [30.0, 33.0]


def test_of_a_number_that_needs_another_the_other_is_made_whole_and_its_files_count_too(folder: Path) -> None:
    write_yaml(folder / "conf/numbers/both/number.yaml", NUMBER | {"needs": "toy"})
    for seed in (1, 2):
        write_yaml(folder / f"conf/numbers/both/translate/seed-{seed}.yaml", {"a": 1})
    stages = Stages(30.0, 33.0, 35.0)
    assert reproduce(open_number("both"), stages, only=["seed-2"]) == 0
    assert stages.ran == ["fetch", "tokenize", "translate/seed-1", "translate/seed-2", "translate/seed-2"]
    both, toy = read_reports()
    assert (both["ours"], toy["ours"]) == ([35.0], [30.0, 33.0])
    write_yaml(folder / "conf/numbers/toy/translate/seed-2.yaml", {"a": 2})
    assert reproduce(open_number("both"), Stages(34.0, 36.0), only=["seed-1"]) == 0
    assert read_reports()[0]["ours"] == [36.0]


def test_a_figure_that_is_made_again_takes_the_place_of_the_one_that_was_kept(folder: Path) -> None:
    reproduce(open_number("toy"), Stages(30.0), only=["seed-1"])
    shutil.rmtree(folder / ".pipeline")
    reproduce(open_number("toy"), Stages(32.0), only=["seed-1"])
    assert read_reports()[0]["ours"] == [32.0]


def test_each_figure_keeps_its_runtime_and_the_command_has_that_of_the_last_one_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[str, list[str]]:
        (report,) = read_reports()
        runtimes = [report["made"][seed]["machine"]["runtime"] for seed in ("seed-1", "seed-2")]
        return report["command"].partition("make")[0], runtimes

    monkeypatch.setenv("PIPELINE_RUNTIME", "ddp_cpu")
    cut = Stages(30.0)
    cut.codes["translate/seed-2"] = 143
    assert reproduce(open_number("toy"), cut) == 143
    monkeypatch.setenv("PIPELINE_RUNTIME", "cpu_bf16")
    assert reproduce(open_number("toy"), Stages(33.0)) == 0
    assert found() == ("PIPELINE_RUNTIME=cpu_bf16 ", ["ddp_cpu", "cpu_bf16"])
    # Another machine makes the first seed anew, and has the report of the second alone.
    shutil.rmtree(folder / ".pipeline")
    monkeypatch.delenv("PIPELINE_RUNTIME")
    assert reproduce(open_number("toy"), Stages(31.0), only=["seed-1"]) == 0
    assert found() == ("", [NO_RUNTIME, "cpu_bf16"])


def test_the_commands_hand_on_which_runs_are_wanted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = Stages(30.0, 33.0)
    monkeypatch.setattr("pipeline.reproduce.run_stage", stages)
    command = ["make", "--dry-run", "--always-make", "reproduce", "NUMBER=toy", "RUN=seed-1 seed-3", "INSTALLED="]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in shown.splitlines() if "pipeline.reproduce" in line)
    arguments = line.split()[3:]
    assert arguments == ["toy", "--run", "seed-1", "--run", "seed-3"]
    assert main(arguments) == 2 and stages.ran == []
    assert "toy: no run seed-3; there are seed-1, seed-2" in capsys.readouterr().err
    assert main(["toy", "--run", "seed-2"]) == 0 and stages.ran[2:] == ["translate/seed-2"]


def test_a_call_for_all_runs_keeps_nothing_that_was_not_made_here(folder: Path) -> None:
    reproduce(open_number("toy"), Stages(30.0), only=["seed-2"])
    shutil.rmtree(folder / ".pipeline")
    cut = Stages(33.0)
    cut.codes["translate/seed-2"] = 143
    assert reproduce(open_number("toy"), cut) == 143
    assert read_reports()[0]["ours"] == [33.0]


def test_a_run_that_the_number_does_not_have_is_named_with_those_that_it_has(folder: Path) -> None:
    stages = Stages()
    with pytest.raises(ValueError, match="toy: no run seed-3; there are seed-1, seed-2"):
        reproduce(open_number("toy"), stages, only=["seed-1", "seed-3"])
    assert stages.ran == []
