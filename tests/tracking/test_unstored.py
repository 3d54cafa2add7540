"""What a store of artifacts does not take: nothing else waits for it, and it is sent when the store takes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking.files import FAULT, LOG
from pipeline.tracking.mlflow_runs import Sender
from pipeline.tracking.tracker import FileTracker
from tests.tracking.conftest import helpers, run_stage, runs, store, track_stage, until


def test_artifacts_that_are_not_stored_hold_nothing_else_up_and_are_stored_later(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file stands where the folder of the artifacts is to be, as a path of the server does on another machine."""
    in_the_way = work / "artifacts"
    in_the_way.touch()
    store().create_experiment("pipeline", artifact_location=(in_the_way / "runs").as_uri())
    with track_stage("sft", key="k") as tracker:
        tracker.text("notes.txt", "first")
        tracker.text("notes.txt", "second")
        tracker.params({"threads": 2})
        tracker.metrics({"loss": 1.0}, 1)
        until(lambda: "sft" in runs() and "loss" in runs()["sft"].data.metrics)
        until((tracker.folder / FAULT).exists)
    until(lambda: not helpers(work))
    sft = runs()["sft"]
    assert sft.info.status == "FINISHED"
    assert sft.data.params["inner.beta"] == "0.5" and sft.data.params["threads"] == "2"
    assert caplog.text.count("MLflow stores no artifacts: ") == 1 and "out of reach" not in caplog.text
    assert f"what it did not take stays in {tracker.folder}" in caplog.text

    in_the_way.unlink()
    run_stage("dpo", key="k2")
    until(lambda: not helpers(work))
    stored = in_the_way / "runs" / sft.info.run_id / "artifacts"
    assert (stored / "notes.txt").read_text() == "second" and (stored / "config.json").is_file()
    assert (tracker.folder / LOG).read_text().count("artifacts are not stored") == 1
    assert set(runs()) == {"cpu", "sft", "dpo"}
    assert (runs()["sft"].info.status, runs()["sft"].info.end_time) == ("FINISHED", sft.info.end_time)


def test_a_run_whose_parameters_were_cut_off_is_gone_on_with(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.tracker._start_helper", lambda folder: None)
    # In this process mlflow may know the relative address as the store of another test.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work / 'mlflow.db'}")
    with track_stage("sft", key="k") as tracker:
        tracker.metrics({"loss": 1.0}, 1)
    assert isinstance(tracker, FileTracker)

    def fail(self: Sender, run_id: str, values: Mapping[str, Any]) -> None:
        raise ConnectionResetError("cut off")

    with monkeypatch.context() as broken:
        broken.setattr(Sender, "_add_params", fail)
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                Sender(tracker.folder).connect()
    sender = Sender(tracker.folder)
    sender.connect()
    sender.send()
    assert runs()["sft"].info.run_id == sender.run_id
    assert runs()["sft"].data.params["inner.beta"] == "0.5"


def test_a_run_that_goes_on_knows_nothing_of_a_server_that_was_away(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PIPELINE_TRACKING", "local")
    with pytest.raises(SystemExit), track_stage("sft", key="k") as tracker:
        raise SystemExit(143)
    (tracker.folder / FAULT).write_text("MLflow is out of reach: refused")
    with track_stage("sft", key="k") as resumed:
        pass
    assert resumed.folder == tracker.folder
    assert "out of reach" not in caplog.text
