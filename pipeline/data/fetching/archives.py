"""Named files out of untrusted archives: zip (wheels) and tar with any compression (source packages).

Only regular files whose name fits a pattern are written, below the target folder, up to a bound on their bytes; nothing
of an archive is run. A pattern `OUTER!INNER` reaches into an archive within the archive. A matching single file that is
compressed with bzip2 or gzip (`x.xml.bz2`) is written decompressed, without that ending.
"""

import bz2
import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

CHUNK = 1 << 20
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ZIP_ENDINGS = (".zip", ".whl")


@dataclass(frozen=True)
class Member:
    """One entry of an archive while the archive is being read."""

    name: str
    is_regular: bool
    stream: io.BufferedIOBase | None
    """Contents; None unless the entry is a regular file."""


@dataclass
class Budget:
    """Bytes that may still be written: the bound that a decompression bomb runs into."""

    archive: str
    limit: int
    used: int = 0

    def spend(self, num_bytes: int) -> None:
        """Counts bytes; ValueError when the archive's bound is passed."""
        self.used += num_bytes
        if self.used > self.limit:
            raise ValueError(f"{self.archive}: the named files hold more than max_bytes = {self.limit:,} bytes")


def extract(archive: Path, patterns: Sequence[str], target: Path, *, max_bytes: int) -> list[Path]:
    """Writes the files of `archive` that fit `patterns` below `target`; returns their paths in order of name.

    A pattern is matched from the right, part by part: `locale/de/*.po` fits `x-1.0/src/locale/de/a.po`. Raises
    ValueError for a damaged archive, a link, a path that leaves the folder, a pattern without a fit, too many bytes.
    """
    budget = Budget(archive.name, max_bytes)
    try:
        with archive.open("rb") as stream:
            written = _extract(archive.name, stream, patterns, target, budget)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{archive.name}: damaged archive: {error}") from error
    return sorted(written)


def _extract(name: str, stream: io.BufferedIOBase, patterns: Sequence[str], target: Path, budget: Budget) -> list[Path]:
    """Extracts one level, and the inner archives that `OUTER!INNER` patterns name."""
    unmatched = set(patterns)
    written: list[Path] = []
    for member in _members(name, stream):
        path = _checked(member.name, name)
        fitting = [pattern for pattern in patterns if path.match(pattern.partition("!")[0])]
        if not fitting:
            continue
        unmatched.difference_update(fitting)
        if not member.is_regular or member.stream is None:
            raise ValueError(f"{name}: {member.name} is a link or a special file; only regular files are extracted")
        inner = [pattern.partition("!")[2] for pattern in fitting if "!" in pattern]
        if inner:
            written += _extract(f"{name}!{path.name}", member.stream, inner, target, budget)
        else:
            written.append(_write(path, member.stream, target, budget))
    if unmatched:
        raise ValueError(f"{name}: nothing in this archive fits {', '.join(sorted(unmatched))}")
    return written


def _checked(member: str, archive: str) -> PurePosixPath:
    """The member's path, which must stay below the folder it is extracted to."""
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise ValueError(f"{archive}: {member} leaves the folder that it is extracted to; archive refused")
    return path


def _members(name: str, stream: io.BufferedIOBase) -> Iterator[Member]:
    """The entries of a zip or tar archive, each readable until the next one is asked for."""
    if name.endswith(ZIP_ENDINGS):
        if not stream.seekable():
            raise ValueError(f"{name}: a zip within a tar cannot be read")
        with zipfile.ZipFile(cast(IO[bytes], stream)) as bundle:
            for info in sorted(bundle.infolist(), key=lambda info: info.filename):
                mode = info.external_attr >> 16
                if info.is_dir():
                    continue
                if stat.S_IFMT(mode) in (0, stat.S_IFREG):
                    with bundle.open(info) as contents:
                        yield Member(info.filename, True, cast(io.BufferedIOBase, contents))
                else:
                    yield Member(info.filename, False, None)
    elif name.endswith(TAR_ENDINGS):
        with tarfile.open(fileobj=stream, mode="r|*") as bundle:
            for entry in bundle:
                if not entry.isdir():
                    inside = bundle.extractfile(entry) if entry.isreg() else None
                    yield Member(entry.name, entry.isreg(), cast(io.BufferedIOBase | None, inside))
    else:
        raise ValueError(f"{name}: not a known archive; allowed: {', '.join(TAR_ENDINGS + ZIP_ENDINGS)}")


def _write(path: PurePosixPath, stream: io.BufferedIOBase, target: Path, budget: Budget) -> Path:
    """Writes one member below `target`, decompressed when it is a single compressed file."""
    contents: io.BufferedIOBase = stream
    if path.suffix in (".bz2", ".gz") and not path.name.endswith(TAR_ENDINGS):
        contents = bz2.BZ2File(stream) if path.suffix == ".bz2" else gzip.GzipFile(fileobj=stream)
        path = path.with_suffix("")
    file = target.joinpath(*path.parts)
    if file.exists():
        raise ValueError(f"{budget.archive}: {path} is in the archive more than once")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as output:
        while chunk := contents.read(CHUNK):
            budget.spend(len(chunk))
            output.write(chunk)
    return file
