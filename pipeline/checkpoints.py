"""Resume checkpoints: atomic, verified, chosen by their manifest.

A checkpoint is a folder `step-00000120` that holds what every rank wrote and a manifest with the size and SHA-256 of
each file. It is written under a temporary name, forced to the disk and renamed: a folder without a valid manifest
does not count. The folder above belongs to one run key (configuration, code, inputs) and to one trainer at a time.
The checksums detect corruption, not malice: never resume from a folder that somebody else could write.
"""

import errno
import hashlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.artifacts import disk_faults, flush, fsync, read_json, write_json

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_PREFIX = "step-"
_KEEP = 2
_LATE_SECONDS = 10.0
"""How late a network file system may show one node what another has written."""

Resume = Literal["exact", "weights", "any"]
"""From what a run goes on.

exact: checkpoints of its own key and kind of run. weights: where there is none, from the weights of one of another key
or kind of run. any: where there is none of its own key, from the whole state of one of another key.
"""


@dataclass(frozen=True)
class Writer:
    """Who wrote a checkpoint, and so who continues it: optimizer states are split by strategy and rank, and a training
    in another precision or on another kind of device has other gradients."""

    strategy: str
    """Kind of state: single, ddp, zero1, zero2, zero3."""
    world_size: int
    """Number of ranks."""
    accelerator: str
    """Kind of device: cpu or cuda."""
    precision: str
    """Precision of the matrix products."""
    accumulation: int
    """Micro-batches of a rank in one optimizer step."""

    @staticmethod
    def of(manifest: Mapping[str, Any]) -> "Writer":
        """The writer that a manifest names; what an older manifest does not name is `unknown`, and nobody's."""
        return Writer(**{"accelerator": "unknown", "precision": "unknown", "accumulation": 0} | manifest["writer"])

    def is_continued_by(self, other: "Writer") -> bool:
        """Whether another run goes on from the whole state: into how many micro-batches it cuts its steps is its own
        affair, since the gradient does not depend on it."""
        return replace(self, accumulation=other.accumulation) == other

    def __str__(self) -> str:
        return (
            f"{self.world_size} rank(s) with strategy {self.strategy} on {self.accelerator} in {self.precision}, "
            f"{self.accumulation} micro-batch(es) a step"
        )


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    folder: Path
    update: int
    """Optimizer steps done."""
    writer: Writer
    is_foreign: bool = False
    """Whether it is of another key: another configuration, code or inputs."""
    is_whole: bool = True
    """Whether the optimizer and the random numbers are continued; else the weights alone are."""


class CheckpointFolder:
    """The checkpoints of one run key; beside them stand those of other keys, until the stage has finished."""

    def __init__(self, base: Path, key: str) -> None:
        self.folder = base / "checkpoints" / key

    def tidy(self) -> None:
        """Removes what killed savers left."""
        for partial in self.folder.glob(".*"):
            shutil.rmtree(partial)

    def others(self) -> list[Path]:
        """The folders of other keys that hold a checkpoint, the last written first."""
        written: dict[Path, float] = {}
        for manifest in self.folder.parent.glob(f"*/{_PREFIX}*/{MANIFEST}"):
            folder = manifest.parent.parent
            if folder != self.folder:
                written[folder] = max(written.get(folder, 0.0), manifest.stat().st_mtime)
        return sorted(written, key=lambda folder: (-written[folder], folder))

    @contextmanager
    def writing(self, update: int, *, is_main: bool) -> Iterator[Path]:
        """The temporary folder into which the ranks write before rank 0 publishes it; it vanishes on a failure."""
        temporary = self._temporary(update)
        if is_main:
            temporary.mkdir(parents=True)
        try:
            with disk_faults(temporary):
                yield temporary
        except (OSError, RuntimeError) as error:
            is_given_up = not temporary.exists()
            # Every rank does it: one may still write, or make the folder again, while another removes it.
            shutil.rmtree(temporary, ignore_errors=True)
            if is_given_up:
                reason = "another rank gave this checkpoint up, and says why"
                raise ConnectionAbortedError(errno.ECONNABORTED, reason, str(temporary)) from error
            raise
        finally:
            if is_main:
                shutil.rmtree(temporary, ignore_errors=True)

    def _temporary(self, update: int) -> Path:
        return self.folder / f".{_PREFIX}{update:08d}.partial"

    @contextmanager
    def marked(self, number: int, *, is_main: bool) -> Iterator[None]:
        """Within it a mark of rank 0 is in the folder, for the other ranks to look for."""
        mark = self._mark(number)
        if is_main:
            mark.mkdir(parents=True)
        try:
            yield
        finally:
            if is_main:
                shutil.rmtree(mark, ignore_errors=True)

    def has_mark(self, number: int) -> bool:
        """Whether this rank finds the mark that rank 0 has made, be it a little later."""
        mark, deadline = self._mark(number), time.monotonic() + _LATE_SECONDS
        while not mark.is_dir():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
            with suppress(OSError):
                # Listing the folders has NFS ask the server, which it does not for a name that was missing before.
                for folder in (self.folder.parent.parent, self.folder.parent, self.folder):
                    next(folder.iterdir(), None)
        return True

    def _mark(self, number: int) -> Path:
        return self.folder / f".mark-{number}"

    def updates(self) -> list[int]:
        """The optimizer steps of the published checkpoints, damaged ones among them."""
        return sorted(int(folder.name.removeprefix(_PREFIX)) for folder in self.folder.glob(f"{_PREFIX}*"))

    def publish(self, update: int, writer: Writer) -> None:
        """Makes a complete temporary folder a checkpoint, and drops what it replaces. Rank 0 alone calls this."""
        temporary = self._temporary(update)
        flush(temporary)
        files = {
            path.relative_to(temporary).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / MANIFEST, {"update": update, "writer": asdict(writer), "files": files})
        fsync(temporary)
        final = self.folder / f"{_PREFIX}{update:08d}"
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        fsync(self.folder)
        # Later ones are damaged: this run came from before them.
        earlier = [folder for folder in sorted(self.folder.glob(f"{_PREFIX}*")) if folder <= final]
        for old in self.folder.glob(f"{_PREFIX}*"):
            if old not in earlier[-_KEEP:]:
                shutil.rmtree(old)

    def newest(self, writer: Writer, *, resume: Resume = "exact") -> Checkpoint | None:
        """The newest checkpoint that `resume` allows whose files are what its manifest says.

        Raises ValueError when `writer` does not continue it, unless its weights suffice.
        """
        folders = [self.folder] if resume == "exact" else [self.folder, *self.others()]
        found = next(filter(None, map(_newest_in, folders)), None)
        if found is None:
            return None
        is_foreign = found.folder.parent != self.folder
        fits = found.writer.is_continued_by(writer)
        if not fits and resume != "weights":
            raise ValueError(
                f"{found.folder}: written by {found.writer}, this run has {writer}. Choose the PIPELINE_RUNTIME that "
                f"wrote it; or set PIPELINE_RESUME=weights to go on from step {found.update} with its weights and "
                f"a fresh optimizer; or remove {found.folder.parent} to start again"
            )
        return replace(found, is_foreign=is_foreign, is_whole=fits and not (is_foreign and resume == "weights"))

    def clear(self) -> None:
        """Removes the checkpoints of all keys, after the stage has published its output."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def _newest_in(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of one key; a damaged one is passed over with a warning."""
    for one in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        fault = _fault(one)
        if not fault:
            manifest = read_json(one / MANIFEST)
            return Checkpoint(one, update=manifest["update"], writer=Writer.of(manifest))
        _log.warning("checkpoint %s is damaged (%s): using the one before it", one, fault)
    return None


def _fault(folder: Path) -> str:
    """What is wrong with a checkpoint folder; empty when nothing is."""
    try:
        files = read_json(folder / MANIFEST)["files"]
    except (ValueError, KeyError, TypeError) as error:
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
