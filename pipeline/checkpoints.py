"""Resume checkpoints: atomic, verified, chosen by their manifest.

A checkpoint is a folder `step-00000120` that holds what every rank wrote and a manifest with the size and SHA-256 of
each file. It is written under a temporary name, forced to the disk and renamed: a folder without a valid manifest
does not count. The folder above belongs to one run key (configuration, code, inputs) and to one trainer at a time.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import flush, fsync, read_json, write_json

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_PREFIX = "step-"
_KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    folder: Path
    update: int
    """Optimizer steps done."""
    world_size: int
    """Ranks that wrote it."""


class CheckpointFolder:
    """The checkpoints of one run key; older keys' folders beside it are stale and are removed."""

    def __init__(self, base: Path, key: str) -> None:
        self.folder = base / "checkpoints" / key
        self._lock_path = base / "lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder against a second trainer; ValueError names the process that holds it."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_path.open("a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise ValueError(
                    f"{self._lock_path}: another trainer holds this stage, process {lock.read().strip() or 'unknown'}; "
                    "wait for it or end it"
                ) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def remove_stale(self) -> None:
        """Removes what other run keys and killed savers left behind."""
        for other in self.folder.parent.glob("*"):
            if other != self.folder:
                shutil.rmtree(other)
        for partial in self.folder.glob(".*"):
            shutil.rmtree(partial)

    def temporary(self, update: int) -> Path:
        """Where the ranks write the checkpoint of `update` before it is published."""
        return self.folder / f".{_PREFIX}{update:08d}.partial"

    def publish(self, update: int, *, world_size: int) -> None:
        """Makes a complete temporary folder a checkpoint, and drops the oldest ones. Rank 0 alone calls this."""
        temporary = self.temporary(update)
        flush(temporary)
        files = {
            path.relative_to(temporary).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / MANIFEST, {"update": update, "world_size": world_size, "files": files})
        fsync(temporary)
        final = self.folder / f"{_PREFIX}{update:08d}"
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        fsync(self.folder)
        for old in sorted(self.folder.glob(f"{_PREFIX}*"))[:-_KEEP]:
            shutil.rmtree(old)

    def newest(self, *, world_size: int) -> Checkpoint | None:
        """The newest checkpoint whose files are what its manifest says; a damaged one is passed over with a warning.

        Raises ValueError when it was written by another number of ranks: optimizer states are split by rank.
        """
        for folder in sorted(self.folder.glob(f"{_PREFIX}*"), reverse=True):
            fault = _fault(folder)
            if fault:
                _log.warning("checkpoint %s is damaged (%s): using the one before it", folder, fault)
                continue
            manifest = read_json(folder / MANIFEST)
            found = Checkpoint(folder, update=manifest["update"], world_size=manifest["world_size"])
            if found.world_size != world_size:
                raise ValueError(
                    f"{folder}: written by {found.world_size} rank(s), this run has {world_size}; use the same number "
                    f"of ranks, or remove {self.folder} to start again"
                )
            return found
        return None

    def clear(self) -> None:
        """Removes all checkpoints, after the stage has published its output."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _fault(folder: Path) -> str:
    """What is wrong with a checkpoint folder; empty when nothing is."""
    try:
        files = read_json(folder / MANIFEST)["files"]
    except (ValueError, KeyError) as error:
        return f"no readable manifest: {error}"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
            return f"{name} does not match its checksum"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
