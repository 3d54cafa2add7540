"""Checkpoints are whole or absent, whenever their writer is killed, and only the right run continues from them."""

import errno
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import artifacts, checkpoints
from pipeline.checkpoints import CheckpointFolder, Resume, Writer

DDP = Writer(strategy="ddp", world_size=2, accelerator="cpu", precision="32-true", accumulation=1)
FILES = {"state.ckpt": b"weights", "nested/shard": b"optimizer", "random-0.pt": b"random"}


def write(
    folder: CheckpointFolder, update: int, *, writer: Writer = DDP, until: Callable[[int], None] | None = None
) -> None:
    """Saves a checkpoint; `until` is called after each file."""
    with folder.writing(update, is_main=True) as temporary:
        for number, (name, data) in enumerate(FILES.items()):
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(data + str(update).encode())
            if until:
                until(number)
        folder.publish(update, writer)


def assert_newest(folder: CheckpointFolder, update: int) -> None:
    """The newest checkpoint is that of `update`, with all its files."""
    found = folder.newest(DDP)
    assert found is not None and found.update == update and found.writer == DDP
    for name, data in FILES.items():
        assert (found.folder / name).read_bytes() == data + str(update).encode()


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """Of a run that has saved nothing."""
    return CheckpointFolder(tmp_path / "sft", "key")


def test_nothing_is_continued_at_a_fresh_start(folder: CheckpointFolder) -> None:
    assert folder.newest(DDP) is None


def test_the_newest_two_checkpoints_are_kept(folder: CheckpointFolder) -> None:
    for update in (5, 10, 15):
        write(folder, update)
        assert_newest(folder, update)
    assert sorted(path.name for path in folder.folder.iterdir()) == ["step-00000010", "step-00000015"]
    folder.clear()
    assert folder.newest(DDP) is None


def die(*arguments: Any, **keywords: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(number: int) -> Callable[[int], None]:
    return lambda done: die() if done == number else None


@pytest.mark.parametrize(
    ("phase", "newest"),
    [("first file", 10), ("last file", 10), ("manifest", 10), ("rename", 10), ("dropping the old", 15)],
)
def test_a_kill_in_any_phase_of_saving_leaves_a_whole_checkpoint(
    folder: CheckpointFolder, phase: str, newest: int
) -> None:
    for update in (5, 10):
        write(folder, update)
    child = os.fork()
    if child == 0:
        match phase:
            case "first file":
                write(folder, 15, until=die_after(0))
            case "last file":
                write(folder, 15, until=die_after(len(FILES) - 1))
            case "manifest":
                checkpoints.write_json = die  # type: ignore[attr-defined]
                write(folder, 15)
            case "rename":
                Path.rename = die  # type: ignore[assignment]
                write(folder, 15)
            case "dropping the old":
                shutil.rmtree = die  # type: ignore[assignment]
                write(folder, 15)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert_newest(folder, newest)

    folder.tidy()
    assert not list(folder.folder.glob(".*")), "what the killed writer left is removed at the next start"
    write(folder, 15)
    assert_newest(folder, 15)


def test_a_full_disk_keeps_the_checkpoints_before_and_nothing_half_written(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, 5)
    before = sorted(folder.folder.rglob("*"))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, name in ((artifacts, "fsync"), (checkpoints, "write_json"), (checkpoints, "flush")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="No space left"):
                write(folder, 10)
        assert sorted(folder.folder.rglob("*")) == before
        assert_newest(folder, 5)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "nested/shard").write_bytes(b"optimizeR10"), "nested/shard does not match its checksum"),
        (lambda path: (path / "state.ckpt").write_bytes(b"weig"), "state.ckpt does not match its checksum"),
        (lambda path: (path / "random-0.pt").unlink(), "random-0.pt is missing"),
        (lambda path: (path / "manifest.json").unlink(), "no readable manifest"),
        (lambda path: (path / "manifest.json").write_text("{"), "no readable manifest"),
        (lambda path: (path / "manifest.json").write_text("[]"), "no readable manifest"),
    ],
)
def test_a_torn_or_altered_checkpoint_is_passed_over_with_a_warning(
    folder: CheckpointFolder, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], reason: str
) -> None:
    write(folder, 5)
    write(folder, 10)
    damage(folder.folder / "step-00000010")
    with caplog.at_level(logging.WARNING):
        assert_newest(folder, 5)
    assert "step-00000010 is damaged" in caplog.text and reason in caplog.text
    assert "using the one before it" in caplog.text


def test_a_checkpoint_replaces_damaged_ones_after_it(folder: CheckpointFolder) -> None:
    for update in (5, 10):
        write(folder, update)
    (folder.folder / "step-00000010/state.ckpt").unlink()
    write(folder, 7)
    assert sorted(path.name for path in folder.folder.iterdir()) == ["step-00000005", "step-00000007"]


@pytest.mark.parametrize(
    "other",
    [
        replace(DDP, world_size=4),
        replace(DDP, strategy="zero2"),
        replace(DDP, precision="bf16-mixed"),
        replace(DDP, accelerator="cuda"),
    ],
)
def test_another_kind_of_run_is_refused_with_the_ways_out(folder: CheckpointFolder, other: Writer) -> None:
    write(folder, 5)
    with pytest.raises(ValueError) as caught:
        folder.newest(other)
    message = str(caught.value)
    assert "written by 2 rank(s) with strategy ddp on cpu in 32-true" in message
    ranks = f"{other.world_size} rank(s) with strategy {other.strategy} on {other.accelerator} in {other.precision}"
    assert f"this run has {ranks}" in message
    assert "PIPELINE_RESUME=weights to go on from step 5" in message
    assert f"remove {folder.folder} to start again" in message
    found = folder.newest(other, resume="weights")
    assert found is not None and found.writer == DDP and not found.is_whole


def test_another_number_of_micro_batches_is_continued(folder: CheckpointFolder) -> None:
    write(folder, 5)
    found = folder.newest(replace(DDP, accumulation=4))
    assert found is not None and found.writer == DDP


def test_a_manifest_that_does_not_name_its_precision_is_another_writers(folder: CheckpointFolder) -> None:
    write(folder, 5)
    manifest = folder.folder / "step-00000005/manifest.json"
    values = json.loads(manifest.read_text())
    values["writer"] = {"strategy": "ddp", "world_size": 2}
    manifest.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"written by 2 rank.* with strategy ddp on unknown in unknown, 0 micro"):
        folder.newest(DDP)


def test_checkpoints_of_other_run_keys_stay_until_the_stage_has_finished(tmp_path: Path) -> None:
    other, own = CheckpointFolder(tmp_path, "old"), CheckpointFolder(tmp_path, "new")
    write(other, 5)
    own.tidy()
    assert own.newest(DDP) is None
    for update in (3, 6, 9):
        write(own, update)
    assert_newest(other, 5)
    assert own.others() == [other.folder]
    own.clear()
    assert not other.folder.exists()


def test_the_last_written_checkpoint_of_another_key_is_continued_where_it_is_asked_for(tmp_path: Path) -> None:
    older, newer, own = (CheckpointFolder(tmp_path, key) for key in ("a", "b", "new"))
    write(older, 9)
    write(newer, 5)
    os.utime(older.folder / "step-00000009/manifest.json", (1, 1))
    modes: list[tuple[Resume, bool]] = [("weights", False), ("any", True)]
    for resume, is_whole in modes:
        found = own.newest(DDP, resume=resume)
        assert found is not None and found.folder.parent == newer.folder
        assert found.is_foreign and found.is_whole is is_whole
    with pytest.raises(ValueError, match="step-00000005: written by"):
        own.newest(replace(DDP, world_size=4), resume="any")
    write(own, 2)
    for resume, _ in modes:
        found = own.newest(DDP, resume=resume)
        assert found is not None and found.update == 2 and found.is_whole and not found.is_foreign


def test_a_rank_that_writes_into_a_folder_that_rank_0_has_removed_says_so_whatever_its_library_says(
    tmp_path: Path,
) -> None:
    folder = CheckpointFolder(tmp_path, "key")
    gone = pytest.raises(ConnectionAbortedError, match="another rank gave this checkpoint up")
    with gone, folder.writing(5, is_main=False):
        raise RuntimeError("Parent directory does not exist.")
    with pytest.raises(RuntimeError, match="another reason"), folder.writing(5, is_main=True):
        raise RuntimeError("another reason")


def test_nothing_is_left_when_a_rank_makes_the_folder_again_that_rank_0_has_removed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, "key")
    with pytest.raises(OSError, match="full"), folder.writing(5, is_main=False) as late:
        with pytest.raises(OSError, match="full"), folder.writing(5, is_main=True):
            raise OSError(28, "full")
        late.mkdir(parents=True)
        (late / "part").write_text("x")
        raise OSError(28, "full")
    assert list(folder.folder.iterdir()) == []


def test_a_mark_that_comes_late_is_waited_for_and_goes_with_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, others = CheckpointFolder(tmp_path / "a", "key"), CheckpointFolder(tmp_path / "b", "key")
    late = threading.Timer(0.5, (own.folder / ".mark-7").mkdir, kwargs={"parents": True})
    late.start()
    assert own.has_mark(7)
    late.join()
    monkeypatch.setattr(checkpoints, "_LATE_SECONDS", 0.3)
    with own.marked(8, is_main=True), others.marked(8, is_main=False):
        assert own.has_mark(8) and not own.has_mark(9) and not others.has_mark(8)
    assert not own.has_mark(8)
