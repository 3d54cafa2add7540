"""The model that a stage exports becomes a version in the registry, once, whatever happens to folder and helper."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from pipeline.artifacts import load_tensors, publish, write_json
from pipeline.config import load
from pipeline.inference.handover import save_gpt
from pipeline.layout import Layout
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.runtime import RuntimeConfig
from pipeline.text.tokenizer_training import train_byte_bpe
from pipeline.tracking.files import EVENTS, EXPORT, FAULT
from pipeline.tracking.mlflow_runs import Sender
from pipeline.tracking.tracker import FileTracker, track
from pipeline.training.interrupt import Interrupt
from pipeline.training.run import StageRun
from tests.tracking.conftest import Settings, helpers, run_stage, runs, store, track_stage, until

ROOT = Path(__file__).parents[2]
RUNTIME = load(ROOT / "conf/runtime/cpu.yaml", RuntimeConfig)
TOKENIZER = train_byte_bpe(["the cat sat on the mat", "a dog ran after the cat"] * 4, vocab_size=300)
SHAPE = GPTConfig(vocab_size=TOKENIZER.vocab_size, d_model=16, num_layers=1, num_heads=2, max_length=64)


def save(folder: Path, *, seed: int) -> None:
    torch.manual_seed(seed)
    save_gpt(folder, GPT(SHAPE), TOKENIZER)


@contextmanager
def stage(name: str, *, key: str = "k") -> Iterator[StageRun]:
    """A stage without its training; what it exports and how it ends is left to the block."""
    with track_stage(name, key=key) as tracker:
        layout = Layout.of(Path("conf/cpu", f"{name}.yaml"))
        yield StageRun(layout, key, RUNTIME, Interrupt(), tracker)


def tracker_of(run: StageRun) -> FileTracker:
    assert isinstance(run.tracker, FileTracker)
    return run.tracker


def run_gpt_stage(*, seed: int, key: str = "k") -> FileTracker:
    with stage("translate/gpt", key=key) as run:
        save(run.layout.output, seed=seed)
        run.finish({"loss": 1.0})
    return tracker_of(run)


class NoHelper:
    """Stands for a helper that does nothing."""

    def poll(self) -> int:
        return 0

    def wait(self) -> int:
        return 0


@pytest.fixture
def no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stage tells stays in its files."""
    monkeypatch.setattr("pipeline.tracking.tracker._start_helper", lambda _: NoHelper())


def versions(name: str) -> list[str]:
    return sorted(str(one.version) for one in store().search_model_versions(f"name = '{name}'"))


def weights(version: str) -> dict[str, torch.Tensor]:
    """The weights of a version of the test's model."""
    source = mlflow.artifacts.download_artifacts(
        f"models:/cpu-translate-gpt/{version}", tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}"
    )
    return load_tensors(next(Path(source).rglob("model.safetensors")))


def test_a_model_is_a_version_with_a_signature_and_the_same_bytes_are_the_same_version(work: Path) -> None:
    tracker = run_gpt_stage(seed=0)
    made = load_tensors(Path("models/cpu/translate/gpt/model.safetensors"))
    # DVC moves the output away as soon as the stage has ended, and the stage is not held up.
    shutil.rmtree("models")
    tracker.wait(90.0)
    first = runs()["translate/gpt"]
    assert (first.info.status, first.data.tags["model"]) == ("FINISHED", "models:/cpu-translate-gpt/1")
    assert first.outputs is not None
    (model_id,) = [output.model_id for output in first.outputs.model_outputs]
    described = store().get_logged_model(model_id)
    assert described.source_run_id == first.info.run_id
    mlflow.set_tracking_uri(f"sqlite:///{Path('mlflow.db').absolute()}")
    found = mlflow.models.get_model_info("models:/cpu-translate-gpt/1").signature
    assert found is not None and found.inputs.input_names() == ["text"] and found.outputs.input_names() == ["text"]
    assert weights("1").keys() == made.keys() and all(torch.equal(weights("1")[name], made[name]) for name in made)
    assert not (tracker.folder / EXPORT).exists()

    run_gpt_stage(seed=0).wait(90.0)
    assert versions("cpu-translate-gpt") == ["1"]
    client = store()
    stages = client.search_runs(["1"], "tags.stage = 'translate/gpt'")
    assert {run.data.tags["model"] for run in stages} == {"models:/cpu-translate-gpt/1"} and len(stages) == 2
    run_gpt_stage(seed=1).wait(90.0)
    assert versions("cpu-translate-gpt") == ["1", "2"]


def test_an_output_that_is_no_model_is_not_registered(work: Path, no_helper: None) -> None:
    with stage("reference") as run:
        with publish(run.layout.output) as folder:
            (folder / "train.safetensors").write_bytes(b"sums")
        run.finish({"agreement": 0.5})
    assert "register" not in (tracker_of(run).folder / EVENTS).read_text()


def test_a_model_that_answers_no_requests_is_an_artifact_of_its_run(work: Path) -> None:
    with stage("finetune/choice") as run:
        with publish(run.layout.output) as folder:
            write_json(folder / "config.json", {"architectures": ["BertForMultipleChoice"], "model_type": "bert"})
        run.finish({"f1": 0.5})
    tracker_of(run).wait(90.0)
    found = runs()["finetune/choice"]
    assert found.info.status == "FINISHED" and "model" not in found.data.tags
    assert [file.path for file in store().list_artifacts(found.info.run_id, EXPORT)] == [f"{EXPORT}/config.json"]
    assert store().search_registered_models() == []


def test_a_server_that_is_away_costs_no_time_and_gets_the_model_of_that_run_later(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "http://127.0.0.1:9"  # the port of `discard`, where nothing listens
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with stage("translate/gpt") as run:
        save(run.layout.output, seed=0)
        made = load_tensors(run.layout.output / "model.safetensors")
        started = time.monotonic()
        run.finish({"loss": 1.0})
    assert time.monotonic() - started < 2.0
    tracker = tracker_of(run)
    until((tracker.folder / FAULT).exists)
    until(lambda: not helpers(work))
    save(run.layout.output, seed=1)

    start = tracker.folder / "start.json"
    start.write_text(start.read_text().replace(uri, "sqlite:///mlflow.db"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run_stage("dpo", key="k2")
    until(lambda: not helpers(work))
    assert versions("cpu-translate-gpt") == ["1"]
    assert all(torch.equal(tensor, made[name]) for name, tensor in weights("1").items())


class Killed(BaseException):
    """Stands for a kill."""


def test_a_registration_that_a_kill_cuts_off_is_made_good_once_and_one_that_kills_is_passed_over(
    work: Path, no_helper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = run_gpt_stage(seed=0)
    real = mlflow.register_model

    def killed(*arguments: Any, **options: Any) -> None:
        raise Killed

    def attempt() -> Sender:
        sender = Sender(tracker.folder)
        sender.connect()
        sender.send()
        return sender

    monkeypatch.setattr(mlflow, "register_model", killed)
    with pytest.raises(Killed):
        attempt()
    monkeypatch.setattr(mlflow, "register_model", real)
    sender = attempt()
    assert sender.status == "FINISHED"
    assert versions("cpu-translate-gpt") == ["1"]
    assert len(store().search_logged_models(["1"])) == 1

    tracker = run_gpt_stage(seed=1, key="k2")
    monkeypatch.setattr(mlflow, "register_model", killed)
    for _ in range(2):
        with pytest.raises(Killed):
            attempt()
    assert attempt().status == "FINISHED"
    assert versions("cpu-translate-gpt") == ["1"]


@pytest.mark.parametrize("refused", [("link",), ("link", "copy")])
def test_a_file_system_without_links_or_room_costs_a_copy_or_a_warning(
    work: Path,
    no_helper: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refused: tuple[str, ...],
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", fail)
    if "copy" in refused:
        monkeypatch.setattr(shutil, "copy2", fail)
    tracker = run_gpt_stage(seed=0)
    is_kept = "copy" not in refused
    assert caplog.text.count("is not registered") == (not is_kept)
    assert ('"register"' in (tracker.folder / EVENTS).read_text()) == is_kept
    if is_kept:
        assert (tracker.folder / EXPORT / "model.safetensors").stat().st_nlink == 1


def test_tracking_in_files_alone_keeps_no_second_copy(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_TRACKING", "local")
    layout = Layout.of(Path("conf/cpu/sft.yaml"))
    with track("sft", config=Settings(), inputs=[], layout=layout, key="k") as tracker:
        save(layout.output, seed=0)
        tracker.register(layout.output, "cpu-sft")
    assert isinstance(tracker, FileTracker)
    assert not (tracker.folder / EXPORT).exists()
