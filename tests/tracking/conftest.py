"""A working directory with an MLflow store, and stages that do nothing but tell their tracker."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.config import Config
from pipeline.layout import Layout
from pipeline.tracking.tracker import FileTracker, track


class Inner(Config):
    """Nested settings."""

    beta: float = 0.5
    """A number."""


class Settings(Config):
    """Settings of a stage."""

    inner: Inner = Inner()
    """Nested."""
    text: str = "short"
    """A text."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: creating its tables takes seconds, so it is done once."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def work(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an empty store and one input, where the helper finds the package."""
    shutil.copy(database, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("PIPELINE_TRACKING", raising=False)
    (tmp_path / "corpus.txt").write_text("words")
    return tmp_path


def run_stage(stage: str, *, key: str = "k1", text: str = "short", step: int = 0, last: bool = False) -> FileTracker:
    """One whole run of a stage; waits until its helper has ended."""
    with track_stage(stage, key=key, text=text, last=last) as tracker:
        tracker.metrics({"loss": 1.5, "bad name(%)": float("nan")}, step)
    assert isinstance(tracker, FileTracker)
    tracker.wait(90.0)
    return tracker


def track_stage(stage: str, *, key: str, text: str = "short", last: bool = False) -> Any:
    layout = Layout.of(Path("conf/cpu", f"{stage}.yaml"))
    inputs = [Path("corpus.txt")]
    return track(stage, config=Settings(text=text), inputs=inputs, layout=layout, key=key, last=last)


def store() -> MlflowClient:
    """The store of this test; mlflow keeps one engine an address, so a relative one would not do."""
    return MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}")


def runs() -> dict[str, Run]:
    """Every run of the store by its name."""
    client = store()
    experiment = client.get_experiment_by_name("pipeline")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    names = [run.info.run_name for run in found]
    assert len(set(names)) == len(names), names
    return dict(zip(names, found, strict=True))


def helpers(work: Path) -> list[int]:
    """Processes of the helper that work in this test's directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_helper = b"pipeline.tracking.helper" in (process / "cmdline").read_bytes()
            if is_helper and (process / "cwd").readlink() == work:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
