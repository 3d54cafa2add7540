"""The hand-over between stages: a folder on disk that is either complete or absent.

A trained model is a folder in Hugging Face layout: config.json, model.safetensors, tokenizer.json.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"
"""The older format of the same weights, which we read and never write."""
_INDEX = ".index.json"
"""What follows the name of the weights in that of the file that says which shard each tensor is in."""


_SHORT_WRITE = "unexpected pos"
"""torch's words for a file that ended before everything was written."""


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder holds: the model's configuration and its parameters by name."""

    config: Mapping[str, Any]
    state: Mapping[str, Tensor]


@contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `folder` when the block ends well, and vanishes when it does not.

    What stood at `folder` before is replaced as a whole; files left by a killed run are removed.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        flush(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        fsync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Raises OSError that names a file for the errors by which libraries hide that the disk refused to be written.

    torch loses the name, or leaves the OSError in the context of its own, or says no more than that a write was short;
    safetensors leaves the text.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(path)) from error
    except (RuntimeError, SafetensorError) as error:
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from error
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(path)) from error
        if _SHORT_WRITE in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def flush(folder: Path) -> None:
    """Forces every file and folder below `folder` to the disk."""
    for path in sorted(folder.rglob("*")):
        fsync(path)
    fsync(folder)


def fsync(path: Path) -> None:
    """Forces one file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, values: Any) -> None:
    """Writes JSON whose bytes depend on the values alone, as one atomic replacement of `path`."""
    write_text(path, json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file as one atomic replacement of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Reads a JSON file; ValueError names the file and the place of a fault."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from error


def save_model(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Writes a model in Hugging Face layout into the existing folder `folder`; its tokenizer saves itself beside it.

    Tied parameters must be given once: safetensors refuses tensors that share memory.
    """
    write_json(folder / CONFIG, dict(config))
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in sorted(state.items())}
    with disk_faults(folder / WEIGHTS):
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    # safetensors makes it readable for its owner alone, unlike every other file.
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)


def load_model(folder: Path) -> ModelFolder:
    """Reads a model folder, whose weights are one file or the shards that an index names.

    ValueError names the folder and the file that is missing or damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such model folder; run the stage that makes it, or name another")
    config = read_json(folder / CONFIG)
    for name, read in ((WEIGHTS, load_tensors), (PICKLED, _load_pickled)):
        if (folder / name).is_file():
            return ModelFolder(config=config, state=read(folder / name))
        index = folder / f"{name}{_INDEX}"
        if index.is_file():
            return ModelFolder(config=config, state=_load_shards(index, read))
    raise ValueError(f"{folder}: neither {WEIGHTS} nor {PICKLED} in this folder, nor the {_INDEX} of one in shards")


def _load_shards(index: Path, read: Callable[[Path], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all shards that stand beside their index."""
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index}: expected a weight_map of tensors and their files, found {str(content)[:80]!r}")
    for tensor, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ValueError(f"{index}: weight_map: {tensor}: found {shard!r}, allowed is a file beside the index")
    state: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        if not (index.parent / shard).is_file():
            raise ValueError(f"{index.parent / shard}: no such file, but the weight_map of {index.name} names it")
        found = read(index.parent / shard)
        missing = sorted(tensor for tensor, place in places.items() if place == shard and tensor not in found)
        if missing:
            raise ValueError(f"{index.parent / shard}: has no {', '.join(missing)}, which {index.name} says is in it")
        state |= found
    return state


def _load_pickled(path: Path) -> Mapping[str, Tensor]:
    try:
        found: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(f"{path}: damaged, or not only weights: {error}") from error
    return found


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads one safetensors file; ValueError names the file when it is missing or damaged."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged: {error}") from error
