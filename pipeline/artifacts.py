"""The hand-over between stages: a folder on disk that is either complete or absent.

A trained model is a folder in Hugging Face layout: config.json, model.safetensors, tokenizer.json.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


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


def save_model(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], tokenizer: Path) -> None:
    """Writes a model in Hugging Face layout into the existing folder `folder`.

    `tokenizer` is the folder whose tokenizer files go along, so that the folder opens on its own.
    Tied parameters must be given once: safetensors refuses tensors that share memory.
    """
    write_json(folder / CONFIG, dict(config))
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in sorted(state.items())}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    copy_tokenizer(tokenizer, folder)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies the tokenizer files of one folder into another."""
    if not (source / TOKENIZER_FILES[0]).is_file():
        raise ValueError(f"{source}: no {TOKENIZER_FILES[0]} in this folder")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def load_model(folder: Path) -> ModelFolder:
    """Reads a model folder; ValueError names the folder and the file that is missing or damaged."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such model folder; run the stage that makes it, or name another")
    config = read_json(folder / CONFIG)
    if (folder / WEIGHTS).is_file():
        try:
            return ModelFolder(config=config, state=load_file(folder / WEIGHTS))
        except SafetensorError as error:
            raise ValueError(f"{folder / WEIGHTS}: damaged: {error}") from error
    if (folder / "pytorch_model.bin").is_file():
        return ModelFolder(config=config, state=torch.load(folder / "pytorch_model.bin", weights_only=True))
    raise ValueError(f"{folder}: neither {WEIGHTS} nor pytorch_model.bin in this folder")
