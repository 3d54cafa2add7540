"""Other networks beside the tasks of a number: their figures stand in the rows of these, and nothing waits for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import write_json
from pipeline.layout import Layout
from pipeline.numbers.number import open_number
from pipeline.numbers.table import BEGIN, END
from pipeline.reproduce import reproduce
from tests.project.toy_number import ROOT, write_yaml

FILMS = {
    "key": "score.glue",
    "pretraining": "pretrain_bert",
    "beside": {"majority": "baselines.majority.glue"},
    "beside_tasks": {"GPT": "films-gpt", "LSTM": "films-lstm"},
    "above": "films-random",
}
RANDOM = {"key": "score.glue", "pretraining": "pretrain_bert"}
GPT = {"key": "score.glue", "pretraining": "pretrain_gpt"}
NUMBER: dict[str, Any] = {
    "source": "A paper",
    "metric": "accuracy",
    "key": "score.glue",
    "reported": 80.0,
    "reach": 81.0,
    "tasks": {"films": FILMS, "films-random": RANDOM, "films-lstm": RANDOM, "films-gpt": GPT},
    "goals": {"mean_margin": 3.0},
}
SCORES = {"films/seed-1": 82.0, "films-random/seed-1": 76.0, "films-lstm/seed-1": 79.0, "films-gpt/seed-1": 78.0}
MAIN = ["prepare", "pretrain_bert", "finetune/films/seed-1", "finetune/films-random/seed-1"]
ALL = [*MAIN, "finetune/films-lstm/seed-1", "pretrain_gpt", "finetune/films-gpt/seed-1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one number: a task, its network from random weights, and two other networks beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    write_yaml(tmp_path / "conf/numbers/toy/number.yaml", NUMBER)
    for stage in ("prepare", "pretrain_bert", "pretrain_gpt", *(f"finetune/{run}" for run in SCORES)):
        write_yaml(tmp_path / f"conf/numbers/toy/{stage}.yaml", {"a": 1})
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    # To find the code of a stage takes a second: here a file stands for it.
    for stage in ("prepare", "pretrain_bert", "pretrain_gpt", "finetune"):
        write_yaml(tmp_path / f"code/pipeline.stages.{stage}", stage)
    monkeypatch.setattr("pipeline.reproduce.module_sources", lambda module: (Path("code", module),))
    return tmp_path


def run_all(*, until: str = "", only: tuple[str, ...] = ()) -> list[str]:
    """Reproduces the number with stages that write their metrics and nothing else; returns what ran.

    The stage `until` is cut off.
    """
    ran: list[str] = []

    def run(path: Path, keep: Callable[[float], None]) -> int:
        ran.append(Layout.of(path).stage)
        keep(50.0)
        if ran[-1] == until:
            return 143
        score = SCORES.get(ran[-1].removeprefix("finetune/"), 0.0)
        values = {"score": {"glue": score}, "baselines": {"majority": {"glue": 51.0}}, "training": {"flops": 1.0}}
        values["num_texts"] = {"valid": 400.0}
        write_json(Layout.of(path).metrics, values)
        return 0

    assert reproduce(open_number("toy"), run, only=only) == (143 if until else 0)
    return ran


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "reports/numbers/toy.json").read_text())
    return found


def test_other_networks_stand_in_the_row_of_the_task_and_have_none_of_their_own(folder: Path) -> None:
    run_all()
    films = report(folder)["tasks"]["films"]
    assert films["beside"]["GPT"] == {"ours": [78.0], "mean": 78.0, "spread": None}
    assert films["beside"].keys() == {"majority", "GPT", "LSTM"}
    # Of what decides the number, and of what that starts from: not of the other networks.
    assert report(folder)["flops_by_stage"].keys() == set(MAIN) and report(folder)["flops"] == len(MAIN)
    # Their seconds are kept with the rest of their figures.
    assert report(folder)["tasks"]["films-gpt"]["seconds"] == [50.0]
    rows = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("| `toy` | ")]
    beside = "GPT 78.00 (1), LSTM 79.00 (1), majority 51.00 (1)"
    assert rows == [
        f"| `toy` | films |  | 82.00 (1) | {beside} | +6.00 over films-random |  |",
        "| `toy` | films-random |  | 76.00 (1) |  |  |  |",
    ]
    assert "| 80.00 | 82.00 (1) | 81.00, reached |" in (folder / "README.md").read_text()


def test_what_other_networks_start_from_is_made_behind_the_figures_that_do_not_need_it(folder: Path) -> None:
    assert run_all() == ALL
    assert run_all() == []
    write_yaml(folder / "conf/numbers/toy/pretrain_gpt.yaml", {"a": 2})
    assert run_all() == ["pretrain_gpt", "finetune/films-gpt/seed-1"]
    write_yaml(folder / "conf/numbers/toy/pretrain_bert.yaml", {"a": 2})
    assert run_all() == [
        stage for stage in ALL if stage not in ("prepare", "pretrain_gpt", "finetune/films-gpt/seed-1")
    ]
    write_yaml(folder / "conf/numbers/toy/prepare.yaml", {"a": 2})
    assert run_all() == ALL


def test_a_number_is_whole_before_what_stands_beside_it_is_run(folder: Path) -> None:
    assert run_all(until="finetune/films-random/seed-1") == MAIN
    assert report(folder)["reached"] is None and report(folder)["num_runs"] == {"finished": 1, "planned": 2}
    assert "| 80.00 | 82.00 (1; 1 of 2 runs) | 81.00, not all seeds yet |" in (folder / "README.md").read_text()
    assert run_all(until="finetune/films-lstm/seed-1")[0] == MAIN[-1]
    found = report(folder)
    assert found["reached"] is True and found["num_runs"] == {"finished": 2, "planned": 2}
    assert "| 80.00 | 82.00 (1) | 81.00, reached |" in (folder / "README.md").read_text()
    assert found["tasks"]["films"]["beside"].keys() == {"majority"}
    run_all(until="pretrain_gpt")
    assert report(folder)["tasks"]["films"]["beside"].keys() == {"majority", "LSTM"}
    run_all()
    assert report(folder)["num_runs"] == {"finished": 2, "planned": 2}


def test_a_network_made_alone_takes_what_it_starts_from_and_leaves_the_figures_of_others(folder: Path) -> None:
    assert run_all(only=("films-gpt/seed-1",)) == ["prepare", "pretrain_gpt", "finetune/films-gpt/seed-1"]
    # There is no row yet that it could stand in.
    assert "| `toy` | films-gpt |  | 78.00 (1) |" in (folder / "README.md").read_text()
    assert run_all(only=("films/seed-1", "films-random/seed-1")) == MAIN[1:]
    assert report(folder)["tasks"]["films"]["beside"]["GPT"]["ours"] == [78.0]
    write_yaml(folder / "conf/numbers/toy/pretrain_gpt.yaml", {"a": 2})
    assert run_all(only=("films-gpt/seed-1",)) == ["pretrain_gpt", "finetune/films-gpt/seed-1"]
    assert report(folder)["tasks"]["films"]["ours"] == [82.0]


def test_costs_are_those_of_all_stages_behind_the_figures_and_not_of_what_one_call_ran(folder: Path) -> None:
    run_all()
    whole = dict.fromkeys(ALL, 50.0)
    assert report(folder)["seconds_by_stage"] == whole
    run_all(only=("films-gpt/seed-1",))
    assert report(folder)["seconds_by_stage"] == whole and report(folder)["seconds"] == 50.0 * len(ALL)
    # A figure that is left out takes with it what was run for it alone.
    write_yaml(folder / "conf/numbers/toy/pretrain_gpt.yaml", {"a": 2})
    run_all(only=("films/seed-1",))
    assert report(folder)["seconds_by_stage"].keys() == set(ALL) - {"pretrain_gpt", "finetune/films-gpt/seed-1"}


def test_the_code_of_what_stands_beside_a_number_makes_no_second_version_of_it(folder: Path) -> None:
    def codes() -> dict[str, str]:
        return {name: made["code"] for name, made in report(folder)["made"].items()}

    run_all()
    first = codes()
    write_yaml(folder / "code/pipeline.stages.pretrain_gpt", "changed")
    assert run_all() == ["pretrain_gpt", "finetune/films-gpt/seed-1"]
    assert {name for name, code in codes().items() if code != first[name]} == {"films-gpt/seed-1"}
    write_yaml(folder / "code/pipeline.stages.finetune", "changed")
    run_all(only=("films-lstm/seed-1",))
    assert codes()["films-lstm/seed-1"] != first["films-lstm/seed-1"]
    assert "| 82.00 (1) |" in (folder / "README.md").read_text()
    run_all(only=("films/seed-1",))
    assert "| 82.00 (1, 2 versions of the code) |" in (folder / "README.md").read_text()


def test_tasks_that_start_from_different_stages_are_no_two_versions_of_the_code(folder: Path) -> None:
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"tasks": NUMBER["tasks"] | {"films-random": GPT}})
    run_all()
    assert "| 82.00 (1) |" in (folder / "README.md").read_text()


def test_the_machine_of_a_number_is_that_of_a_run_which_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[str, str]:
        return report(folder)["command"].partition("make")[0], report(folder)["machine"]["runtime"]

    monkeypatch.setenv("PIPELINE_RUNTIME", "cpu_bf16")
    run_all(only=("films-gpt/seed-1",))
    # There is no other one yet.
    assert found() == ("PIPELINE_RUNTIME=cpu_bf16 ", "cpu_bf16")
    monkeypatch.setenv("PIPELINE_RUNTIME", "ddp_cpu")
    run_all(until="finetune/films-lstm/seed-1")
    monkeypatch.setenv("PIPELINE_RUNTIME", "cpu_bf16")
    run_all()
    assert found() == ("PIPELINE_RUNTIME=ddp_cpu ", "ddp_cpu")
    write_yaml(folder / "conf/numbers/toy/pretrain_gpt.yaml", {"a": 2})
    run_all(only=("films-gpt/seed-1",))
    assert found() == ("PIPELINE_RUNTIME=ddp_cpu ", "ddp_cpu")


def test_no_goal_is_missed_by_what_stands_beside_the_tasks(folder: Path) -> None:
    theirs = {"films": {"ours": [82.0], "seconds": [100.0]}, "films-random": {"ours": [76.0], "seconds": [100.0]}}
    write_json(folder / "theirs.json", {"tasks": theirs})
    tasks = {name: task | {"rows": "num_texts.valid"} for name, task in NUMBER["tasks"].items()}
    goals = {"reference": "theirs.json", "goals": {"within_spread": True}}
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"tasks": tasks} | goals)
    run_all()
    assert report(folder)["unmet"] == [] and report(folder)["reached"] is True


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("films", FILMS | {"beside_tasks": {"GPT": "songs"}}, "tasks.films.beside_tasks: songs: no such task"),
        (
            "films",
            FILMS | {"beside_tasks": {"random": "films-random"}},
            "tasks.films.beside_tasks: films-random: it counts itself, and has its own row",
        ),
        ("films-gpt", GPT | {"key": "score.f1"}, "films-gpt is measured by score.f1, expected score.glue"),
        ("films", FILMS | {"beside_tasks": {"majority": "films-gpt"}}, "beside and beside_tasks: both have majority"),
        (
            "films-gpt",
            GPT | {"pretraining": "pretrain_bilm"},
            "tasks.films-gpt.pretraining: pretrain_bilm: there are prepare, pretrain_bert, pretrain_gpt",
        ),
        (
            "films-gpt",
            GPT | {"pretraining": "finetune"},
            "tasks.films-gpt.pretraining: finetune: there are prepare, pretrain_bert, pretrain_gpt",
        ),
        (
            "films-gpt",
            GPT | {"pretraining": ""},
            "tasks.films.pretraining: pretrain_bert is before pretrain_gpt, which may read it",
        ),
    ],
)
def test_tasks_that_stand_beside_others_without_fitting_them_are_refused(
    name: str, task: dict[str, Any], message: str, folder: Path
) -> None:
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"tasks": NUMBER["tasks"] | {name: task}})
    with pytest.raises(ValueError, match=message):
        open_number("toy")
