"""The graph as its user runs it: dvc in a git repository, from generated data to the report, once for this file."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.training.harness import Job

ROOT = Path(__file__).parents[2]
SOURCES = ("pipeline", "conf", "dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvc/plots", ".dvcignore", ".gitignore")
KILLED = "pretrain_gpt"

pytestmark = [
    # Under load, all stages together.
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git, as dvc does"),
]


@dataclass(frozen=True)
class Clone:
    """A repository with nothing in it but what git tracks, set to the profile tiny."""

    root: Path
    environment: Mapping[str, str]

    def run(self, *command: str) -> str:
        """Runs a command and returns what it says; fails when it fails."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def commit(self) -> None:
        """Commits everything that is not ignored."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "state")

    def lock(self) -> str:
        """What dvc has noted about the last run."""
        return (self.root / "dvc.lock").read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A fresh repository."""
    root = tmp_path_factory.mktemp("chain") / "clone"
    for name in SOURCES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    (root / "conf/profile.yaml").write_text("profile: tiny\n")
    (root / "conf/tasks.yaml").write_text("tasks: {}\n")
    # Long enough that a fast machine is still training when the signal has been sent and passed on.
    killed = root / f"conf/tiny/{KILLED}.yaml"
    killed.write_text(killed.read_text().replace("num_steps: 120}", "num_steps: 1000}"))
    assert "num_steps: 1000}" in killed.read_text()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_", "PIPELINE_"))}
    environment = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIPELINE_TRACKING": "local",
        "PIPELINE_RUNTIME": "cpu",
        "OMP_NUM_THREADS": "1",
        # dvc takes it if SHELL is not set. Unlike bash it stays beside a command that it was not told to exec.
        "SHELL": "/bin/sh",
        "DVC_SITE_CACHE_DIR": str(root.parent / "site"),
    }
    clone = Clone(root, environment)
    clone.run("git", "init", "--quiet")
    for key, value in (("user.name", "Tests"), ("user.email", "tests@localhost"), ("commit.gpgsign", "false")):
        clone.run("git", "config", key, value)
    clone.commit()
    return clone


@pytest.fixture(scope="module")
def terminated(clone: Clone) -> int:
    """The exit code of `dvc repro` after SIGTERM in the middle of a training; fails when it leaves a process behind."""
    marker, log = uuid.uuid4().hex, clone.root.parent / "terminated.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["dvc", "repro", KILLED],
            cwd=clone.root,
            env={**clone.environment, "PIPELINE_TEST_MARKER": marker},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    job = Job(process, marker, log, clone.root / f".pipeline/stages/tiny/{KILLED}/tracking")
    try:
        job.wait_for_update(5)
        process.send_signal(signal.SIGTERM)
        return job.wait().exit_codes[0]
    finally:
        job.kill()


@pytest.fixture(scope="module")
def left(clone: Clone, terminated: int) -> list[str]:
    """The files that the terminated run has left."""
    return sorted(path.relative_to(clone.root).as_posix() for path in clone.root.rglob(f"*{KILLED}*/**/*"))


@pytest.fixture(scope="module")
def finished(clone: Clone, left: list[str]) -> Clone:
    """The whole graph, run to its end and committed, as a user would go on from there."""
    log = clone.run("dvc", "repro")
    # What was ready before the signal is not made again.
    assert "Stage 'tokenize' didn't change, skipping" in log and f"Running stage '{KILLED}'" in log
    # What the stopped training had done is not done again either.
    behind = log.partition(f"Running stage '{KILLED}'")[2].partition("Running stage ")[0]
    assert re.search(r"continuing from \S*/step-\d+", behind), behind
    clone.commit()
    return clone


def test_sigterm_to_dvc_stops_the_training_with_a_checkpoint_and_without_half_an_output(
    terminated: int, left: list[str]
) -> None:
    assert terminated != 0
    assert [path for path in left if "/checkpoints/" in path and "/step-" in path]
    assert [path for path in left if not path.startswith((".pipeline/", "pipeline/"))] == []


def test_the_same_command_again_finds_everything_up_to_date(finished: Clone) -> None:
    before = finished.lock()
    log = finished.run("dvc", "repro")
    assert "Data and pipelines are up to date." in log and "Running stage" not in log
    assert finished.lock() == before
    assert finished.run("git", "status", "--porcelain") == ""


def test_every_file_that_the_graph_writes_is_a_declared_output(finished: Clone) -> None:
    outs = [Path(out.fs_path) for out in Repo(str(finished.root)).index.outs]
    written = [
        path
        for kind in ("data", "models", "metrics", "reports")
        for path in (finished.root / kind / "tiny").rglob("*")
        if path.is_file() and path.name != ".gitignore"
    ]
    assert len(written) > 50
    assert [str(path) for path in written if not any(path.is_relative_to(out) for out in outs)] == []
    assert [str(out) for out in outs if not out.exists()] == []


def test_the_metrics_of_dvc_are_the_headline(finished: Clone) -> None:
    (shown,) = json.loads(finished.run("dvc", "metrics", "show", "--json")).values()
    headline = json.loads((finished.root / "reports/tiny/headline.json").read_text())
    assert {path: one["data"] for path, one in shown["data"].items()} == {"reports/tiny/headline.json": headline}
    assert headline.keys() >= {"gpt_perplexity", "translate_transformer", "words_svd", "dpo_judge"}


def test_dvc_draws_the_losses_of_training_and_validation_and_no_cell_that_is_empty(finished: Clone) -> None:
    log = finished.run("dvc", "plots", "show")
    assert "failed" not in log and "index.html" in log
    page = (finished.root / "dvc_plots/index.html").read_text()
    for name in ("pretrain_gpt", "word_vectors/svd", "translate/gru", "finetune/polarity", "ppo"):
        assert f'"text": "metrics/tiny/curves/{name}.csv"' in page
    for column in ("train/total", "valid/total", "train/explained_share", "rollout/reward", "rollout/kl"):
        assert f'"field": "{column}"' in page
    assert page.count("isValid(datum['") == page.count("vegaEmbed('#")
    assert "dvc_plots" not in finished.run("git", "status", "--porcelain")


def test_an_experiment_with_another_beta_reruns_dpo_and_the_report_alone(finished: Clone) -> None:
    before = json.loads((finished.root / "metrics/tiny/dpo.json").read_text())
    log = finished.run("dvc", "exp", "run", "--set-param", "conf/tiny/dpo.yaml:loss.beta=0.3")
    ran = [line.split("'")[1] for line in log.splitlines() if line.startswith("Running stage ")]
    assert ran == ["dpo", "report"], log
    assert json.loads((finished.root / "metrics/tiny/dpo.json").read_text()) != before
    changed = json.loads(finished.run("dvc", "params", "diff", "--json"))
    assert changed["conf/tiny/dpo.yaml"] == {"loss.beta": {"old": 0.1, "new": 0.3, "diff": pytest.approx(0.2)}}
