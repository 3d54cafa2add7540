"""Runs on a real sqlite store: parent and children, resume, long values, faults, and what a kill leaves behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifacts import write_text
from pipeline.config import load
from pipeline.layout import Layout
from pipeline.runtime import RuntimeConfig
from pipeline.stages import tokenize
from pipeline.text.tokenizer import load_tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe
from pipeline.tracking.files import FAULT
from pipeline.tracking.tracker import FileTracker, track
from pipeline.training.interrupt import Interrupt
from pipeline.training.run import StageRun
from tests.tracking.conftest import Settings, helpers, run_stage, runs, store, track_stage, until

SINGLE = load(Path(__file__).parents[2] / "conf/runtime/cpu.yaml", RuntimeConfig)


def test_stages_are_children_of_one_parent_that_the_last_stage_closes(work: Path) -> None:
    run_stage("sft", step=3)
    parent = runs()["cpu"]
    assert parent.info.status == "RUNNING"
    run_stage("translate/gru", key="k2")
    run_stage("report", key="k3", last=True)

    found = runs()
    assert set(found) == {"cpu", "sft", "translate/gru", "report"}
    assert found["cpu"].info.status == "FINISHED"
    for stage in ("sft", "translate/gru", "report"):
        assert found[stage].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert found[stage].info.status == "FINISHED"
    sft = found["sft"]
    assert sft.data.metrics["loss"] == 1.5
    assert sft.data.params["inner.beta"] == "0.5"
    assert len(sft.data.tags["input/corpus.txt"]) == 64
    assert sft.data.metrics["system/memory_bytes"] > 1e6
    client = store()
    assert [metric.step for metric in client.get_metric_history(sft.info.run_id, "loss")] == [3]
    assert json.loads((work / "mlartifacts" / sft.info.run_id / "artifacts/config.json").read_text()) == {
        "inner": {"beta": 0.5},
        "text": "short",
    }
    assert json.loads(Path(".pipeline/run.json").read_text()) == {}


def test_a_stage_that_did_not_run_is_linked_to_the_new_parent(work: Path) -> None:
    run_stage("sft")
    run_stage("report", key="k2", last=True)
    first = runs()["sft"].info.run_id
    run_stage("report", key="k3", last=True)
    client = store()
    parents = client.search_runs(["1"], "tags.family = 'cpu'")
    linked = [parent.data.tags.get("cached/sft") for parent in parents]
    assert sorted(linked, key=str) == sorted([None, first], key=str)


STAGE = """
import sys
from tests.tracking.conftest import track_stage
with track_stage("sft", key="same") as tracker:
    tracker.params({"threads": int(sys.argv[1]), "only in " + sys.argv[1]: True})
    tracker.metrics({"loss": 2.0}, int(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
"""


def hanging(number: int) -> "subprocess.Popen[bytes]":
    """A process in the middle of a stage, which ends when it is told so; it must have said that it is there."""
    command = [sys.executable, "-c", STAGE, str(number)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def test_a_killed_stage_is_marked_killed_and_the_next_process_continues_the_same_run(work: Path) -> None:
    with hanging(1) as process:
        until(lambda: "sft" in runs())
        assert runs()["sft"].info.status == "RUNNING"
        process.send_signal(signal.SIGKILL)
    until(lambda: runs()["sft"].info.status == "KILLED")
    killed = runs()["sft"].info.run_id

    with hanging(2) as process:
        until(lambda: runs()["sft"].info.status == "RUNNING")
        process.communicate(b"end\n")
        assert process.returncode == 0
    until(lambda: runs()["sft"].info.status == "FINISHED")
    resumed = runs()["sft"]
    assert resumed.info.run_id == killed
    assert resumed.data.params["threads"] == "1", "a parameter of a run stays what it was"
    assert resumed.data.params["only in 2"] == "true", "and keeps no other from being added"
    history = store().get_metric_history(killed, "loss")
    assert [metric.step for metric in history] == [1, 2]
    until(lambda: not helpers(work))


def test_another_configuration_or_a_finished_stage_begins_a_new_run(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_TRACKING", "local")
    first = run_stage("sft", key="a")
    second = run_stage("sft", key="a")
    third = run_stage("sft", key="b")
    assert len({first.folder, second.folder, third.folder}) == 3


def test_a_failed_stage_is_marked_failed_and_its_error_goes_on(work: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"), track_stage("sft", key="k") as tracker:
        raise RuntimeError("broken")
    tracker.wait(90.0)
    assert runs()["sft"].info.status == "FAILED"


def test_values_longer_than_mlflow_takes_are_cut_in_params_and_whole_in_the_artifact(work: Path) -> None:
    run_stage("sft", text="x" * 9_000)
    sft = runs()["sft"]
    assert 5_000 < len(sft.data.params["text"]) < 6_000
    config = json.loads((work / "mlartifacts" / sft.info.run_id / "artifacts/config.json").read_text())
    assert len(config["text"]) == 9_000


def test_a_closed_port_delays_nothing_warns_once_and_is_made_good_later(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    with track_stage("sft", key="k") as tracker:
        for step in range(1000):
            tracker.metrics({"loss": float(step)}, step)
    assert time.monotonic() - started < 1.0
    until((tracker.folder / FAULT).exists)
    tracker.wait(1.0)
    tracker.wait(1.0)
    assert caplog.text.count("MLflow is out of reach") == 1
    assert (tracker.folder / "events.jsonl").read_text().count('"metrics"') == 1000
    until(lambda: not helpers(work))

    # The address of a store that works stands in for a server that comes back.
    start = tracker.folder / "start.json"
    start.write_text(start.read_text().replace(uri, "sqlite:///mlflow.db"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run_stage("dpo", key="k2")
    until(lambda: "sft" in runs() and runs()["sft"].info.status == "FINISHED")
    history = store().get_metric_history(runs()["sft"].info.run_id, "loss")
    assert [metric.step for metric in history] == list(range(1000))


def test_a_refused_fact_does_not_stop_those_behind_it(work: Path) -> None:
    with track_stage("sft", key="k") as tracker:
        tracker.params({"good": 1})
        tracker.params({"k" * 300: 1})
        tracker.artifact(Path("missing.txt"))
        tracker.text("notes/sample.txt", "hello")
        tracker.metrics({"loss": 1.0}, 1)
    tracker.wait(90.0)
    sft = runs()["sft"]
    assert sft.data.params["good"] == "1" and sft.data.metrics["loss"] == 1.0
    assert (work / "mlartifacts" / sft.info.run_id / "artifacts/notes/sample.txt").read_text() == "hello"


def test_samples_and_the_hash_of_the_tokenizer_are_kept_with_the_run(work: Path) -> None:
    layout = Layout.of(Path("conf/cpu/sft.yaml"))
    tokenizer = train_byte_bpe(["the cat sat", "a dog"] * 4, vocab_size=300)
    layout.output.mkdir(parents=True)
    tokenizer.save(layout.output)
    samples = [{"prompt": "grün", "score": 0.5}]
    with track_stage("sft", key="k") as tracker:
        StageRun(layout, "k", SINGLE, Interrupt(), tracker).finish({"loss": 1.0}, samples=samples)
    tracker.wait(90.0)
    sft = runs()["sft"]
    assert sft.data.params["tokenizer.hash"] == tokenizer.hash
    assert json.loads((work / "mlartifacts" / sft.info.run_id / "artifacts/samples.json").read_text()) == samples


def test_the_hashes_of_the_tokenizers_are_kept_with_their_run(work: Path) -> None:
    layout = Layout.of(Path("conf/cpu/tokenize.yaml"))
    for split in ("train", "valid", "test"):
        write_text(
            layout.data(f"prepared/translation/{split}.jsonl"),
            json.dumps({"src": "the cat", "tgt": "die Katze", "id": "1", "source": "mine"}) + "\n",
        )
    write_text(Path("conf/cpu/tokenize.yaml"), "translation: {vocab_size: 100}\n")
    tokenize.main(Path("conf/cpu/tokenize.yaml"))
    found = load_tokenizer(layout.data("tokens/translation")).hash
    until(lambda: "tokenize" in runs() and runs()["tokenize"].info.status == "FINISHED")
    assert runs()["tokenize"].data.params["tokenizer.translation.hash"] == found


def test_a_full_disk_costs_one_warning(
    work: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_TRACKING", "local")
    with track_stage("sft", key="k") as tracker:
        assert isinstance(tracker, FileTracker) and tracker._file is not None
        with Path("/dev/full").open("w") as full:
            os.dup2(full.fileno(), tracker._file.fileno())
        tracker.metrics({"loss": 1.0}, 1)
        tracker.metrics({"loss": 1.0}, 2)
    assert caplog.text.count("not tracked from here on") == 1


def test_an_end_that_cannot_be_noted_and_a_fault_that_cannot_be_read_cost_a_warning(
    work: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_TRACKING", "local")
    with track_stage("sft", key="k") as tracker:
        shutil.rmtree(tracker.folder)
    assert caplog.text.count("is not noted") == 1
    with track_stage("dpo", key="k") as tracker:
        (tracker.folder / FAULT).mkdir()
    tracker.wait(1.0)
    assert caplog.text.count("cannot be read") == 1


def test_other_ranks_track_nothing(work: Path) -> None:
    layout = Layout.of(Path("conf/cpu/sft.yaml"))
    with track("sft", config=Settings(), inputs=[], layout=layout, key="k", enabled=False) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
    assert not Path(".pipeline").exists()
