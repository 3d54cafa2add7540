"""Data sets and models of the Hugging Face hub, at a pinned revision.

A data set is streamed: a split is written as its rows come, and no copy of it is left in the caches of the hub. What
the hub does wrong is a ValueError that names the data set and the row; what our own disk does wrong stays an OSError.
"""

import errno
import json
import lzma
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.artifacts import disk_faults, fsync
from pipeline.config import Config
from pipeline.data.records import refuse_half_characters
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


def load_data_set(source: HubSource, folder: Path, kept: Path) -> str:
    """Writes each split as JSON lines, one row at a time as they come.

    Returns the commit that a branch or tag stands for now; empty for a folder, and where the hub is not asked. A split
    of a known commit that is complete is kept in `kept` under a second name of the same file, and taken from there.
    """
    commit = _commit_of(source)
    of_commit = kept / source.dataset / source.config / commit if commit else None
    folder.mkdir(parents=True, exist_ok=True)
    for split in source.splits:
        name = f"hub data set {source.dataset} ({split})"
        path = folder / f"{split}.jsonl"
        if of_commit and _is_taken(of_commit / path.name, path):
            continue
        rows = progress(_rows_of(source, split, commit or source.revision, name), name=name, unit="rows")
        with disk_faults(path), path.open("w", encoding="utf-8", newline="\n") as output:
            for number, row in enumerate(rows, start=1):
                output.write(_line_of(row, f"{name}, row {number:,}"))
        if of_commit:
            fsync(path)
            # Where a file cannot have two names, a fetch that is cut off begins anew.
            with suppress(OSError):
                of_commit.mkdir(parents=True, exist_ok=True)
                os.link(path, of_commit / path.name)
    return commit


def _is_taken(kept: Path, path: Path) -> bool:
    """Whether the split had come before and is now at `path` too; another fetch of the profile may remove it."""
    try:
        os.link(kept, path)
    except OSError:
        return False
    return True


def load_model(source: HubModelSource, folder: Path) -> str:
    """Copies the files of a model; returns the commit that a branch or tag stands for, empty where it is not known."""
    import huggingface_hub

    with _to_be_had(f"hub model {source.model} at {source.revision}"):
        wanted = [*source.files, *source.optional_files]
        found = Path(huggingface_hub.snapshot_download(source.model, revision=source.revision, allow_patterns=wanted))
    for path in sorted(path for path in found.rglob("*") if path.is_file()):
        target = folder / path.relative_to(found)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    missing = [pattern for pattern in source.files if not any(folder.glob(pattern))]
    if missing:
        raise ValueError(f"hub model {source.model} at {source.revision}: no file fits {', '.join(missing)}")
    # The folder of a download is named by its commit.
    return found.name if found.parent.name == "snapshots" else ""


def _commit_of(source: HubSource) -> str:
    """The commit that a branch or tag of the hub stands for now; empty for a folder, and where the hub is not asked."""
    import huggingface_hub

    if Path(source.dataset).exists() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return ""
    with _to_be_had(f"hub data set {source.dataset} at {source.revision}"):
        return huggingface_hub.HfApi().dataset_info(source.dataset, revision=source.revision).sha or ""


@contextmanager
def _to_be_had(what: str) -> Iterator[None]:
    """ValueError names what the hub does not give; a fault of the network is no OSError there."""
    import httpx2

    try:
        yield
    except (OSError, ValueError, httpx2.HTTPError) as error:
        if _is_full(error):
            raise
        raise ValueError(f"{what} is not to be had: {_first_line(error)}") from error


def _rows_of(source: HubSource, split: str, revision: str, name: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a split as they come, from one row group of a Parquet file after the other.

    Of a whole file Arrow reads on while rows are written, up to all of it. ValueError says behind which row the data
    set ended; what is raised while a row is written does not come here.
    """
    import datasets  # takes seconds to import, and only this kind of source needs it

    number = 0
    try:
        rows = datasets.load_dataset(source.dataset, source.config, split=split, revision=revision, streaming=True)
        for row in rows.reshard():
            yield row
            number += 1
    except _faults_of_reading() as error:
        if _is_full(error):
            raise
        where = f" behind row {number:,}" if number else ""
        raise ValueError(f"{name} cannot be loaded{where}: {_reason(error)}") from error


def _faults_of_reading() -> tuple[type[Exception], ...]:
    """What `datasets` and the libraries below it raise for data that are not there, damaged, or nothing it can read.

    A loading script is a RuntimeError, an archive that cannot be streamed a NotImplementedError, a column whose kind
    changes a TypeError, one of images without the library that decodes them an ImportError, and a file that ends too
    early or is damaged an error of its compression.
    """
    import datasets
    import httpx2
    import pyarrow as pa

    of_data = (OSError, ValueError, TypeError, RuntimeError, ImportError, EOFError)
    of_files = (pa.ArrowException, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
    return (*of_data, *of_files, httpx2.HTTPError, datasets.exceptions.DatasetsError)


def _is_full(error: Exception) -> bool:
    """Whether a disk is full, which is the one below the caches of the hub and so our own."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _reason(error: Exception) -> str:
    """Why a data set cannot be read, and what else to do where the words of the library are for its own developers."""
    if isinstance(error, NotImplementedError) and "TAR" in str(error):
        return "a TAR archive cannot be streamed; download and unpack it, and take the files with kind: folder"
    return _first_line(error.__cause__ or error)


def _first_line(error: BaseException) -> str:
    """What an error says, or what it is: a time-out says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _line_of(row: Mapping[str, Any], where: str) -> str:
    """A row as a line of JSON; ValueError names the values that have no form in it or in UTF-8, by keys and kind."""
    refuse_half_characters(row, where)
    try:
        return json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n"
    except TypeError:
        found = ", ".join(f"{place} ({kind})" for place, kind in _refused(row, ""))
        message = f"{where}: texts, numbers, lists and structures of them can be written, not {found}"
        raise ValueError(message) from None


def _refused(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Where the values are that JSON has no form for, with their kinds; of each list the first one."""
    match value:
        case None | bool() | int() | float() | str():
            return
        case dict():
            for key, part in sorted(value.items()):
                yield from _refused(part, f"{place}.{key}" if place else str(key))
        case list() | tuple():
            found = (one for number, part in enumerate(value) for one in _refused(part, f"{place}[{number}]"))
            yield from islice(found, 1)
        case _:
            yield place, type(value).__name__
