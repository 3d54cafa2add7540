"""The hand-over folder is complete or absent, whatever happens while it is written."""

import errno
import io
import os
from pathlib import Path
from typing import IO, Any, cast

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from pipeline import artifacts
from pipeline.artifacts import disk_faults, load_model, publish, read_json, save_model, write_json, write_text


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_appears_when_it_is_complete_and_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "models/sft"
    for version in ("old", "new"):
        with publish(folder) as temporary:
            (temporary / version).write_text(version)
            assert content(tmp_path / "models").get("sft/new") is None
    assert content(tmp_path) == {"models/sft/new": "new"}


def test_a_failure_leaves_the_old_folder_and_nothing_half_written(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    with publish(folder) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(RuntimeError, match="broken"), publish(folder) as temporary:
        (temporary / "a").write_text("new")
        raise RuntimeError("broken")
    assert content(tmp_path) == {"sft/a": "old"}


def test_what_a_killed_run_left_is_not_handed_over(tmp_path: Path) -> None:
    leftover = tmp_path / ".sft.partial"
    leftover.mkdir()
    (leftover / "stale").write_text("x")
    with publish(tmp_path / "sft") as temporary:
        (temporary / "a").write_text("a")
    assert content(tmp_path) == {"sft/a": "a"}


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(artifacts, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        if what == "file":
            write_text(tmp_path / "metrics/sft.json", "text")
        else:
            with publish(tmp_path / "sft") as temporary:
                (temporary / "a").write_text("a")
    assert content(tmp_path) == {}


class Disk(io.RawIOBase):
    """A file on a disk with room for so many writes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


@pytest.mark.parametrize("room", range(6))
def test_a_full_disk_is_an_oserror_whenever_it_meets_torch(tmp_path: Path, room: int) -> None:
    with pytest.raises(OSError, match="No space left") as caught, disk_faults(tmp_path / "state.ckpt"):
        torch.save({"a": torch.zeros(100)}, cast(IO[bytes], Disk(room)))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "state.ckpt")


def test_a_full_disk_is_an_oserror_when_a_library_tells_it_in_words_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, disk_faults(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC

    with pytest.raises(RuntimeError, match="something else"), disk_faults(tmp_path):
        raise RuntimeError("something else")


def test_json_is_a_function_of_its_values(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": {"d": 0.1, "c": "ü"}})
    write_json(tmp_path / "b.json", {"a": {"c": "ü", "d": 0.1}, "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": {"c": "ü", "d": 0.1}, "b": 1}


@pytest.mark.parametrize(
    ("data", "reason"), [(None, "no such file"), (b"{", "not readable"), (b"\xff", "not readable")]
)
def test_json_that_cannot_be_read_is_named(tmp_path: Path, data: bytes | None, reason: str) -> None:
    if data is not None:
        (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=f"a.json: {reason}"):
        read_json(tmp_path / "a.json")


STATE = {"w": torch.arange(6.0).view(2, 3), "b": torch.tensor([1.5])}


def save(folder: Path, state: dict[str, Tensor]) -> None:
    with publish(folder) as temporary:
        save_model(temporary, {"d_model": 3}, state)


def test_a_model_folder_gives_back_what_was_saved_byte_by_byte_whatever_the_order(tmp_path: Path) -> None:
    save(tmp_path / "a", STATE)
    # A view that is not contiguous, in another order.
    save(tmp_path / "b", {"b": STATE["b"], "w": STATE["w"].t().contiguous().t()})
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    found = load_model(tmp_path / "b")
    assert found.config == {"d_model": 3}
    assert_close(dict(found.state), STATE, rtol=0, atol=0)


def test_the_weights_are_as_readable_as_the_configuration(tmp_path: Path) -> None:
    save(tmp_path / "a", STATE)
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "a").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_weights_in_the_older_format_are_read_without_running_code(tmp_path: Path) -> None:
    save(tmp_path, STATE)
    (tmp_path / "model.safetensors").unlink()
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    assert_close(dict(load_model(tmp_path).state), STATE, rtol=0, atol=0)
    torch.save({"w": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin: damaged, or not only weights"):
        load_model(tmp_path)


def in_shards(folder: Path, name: str) -> Path:
    """Cuts the one file of weights into two, as `transformers` did with `pytorch_model.bin` too; returns the index."""
    save(folder, STATE)
    (folder / "model.safetensors").unlink()
    stem, suffix = name.rsplit(".", 1)
    places = {tensor: f"{stem}-0000{i}-of-00002.{suffix}" for i, tensor in enumerate(STATE, 1)}
    for tensor, shard in places.items():
        values = {tensor: STATE[tensor]}
        if suffix == "bin":
            torch.save(values, folder / shard)
        else:
            save_file(values, folder / shard)
    write_json(folder / f"{name}.index.json", {"metadata": {"total_size": 28}, "weight_map": places})
    return folder / f"{name}.index.json"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_shards_are_read_and_a_shard_that_is_missing_damaged_or_another_is_named(
    tmp_path: Path, name: str
) -> None:
    index = in_shards(tmp_path / "bert", name)
    assert_close(dict(load_model(tmp_path / "bert").state), STATE, rtol=0, atol=0)
    one, two = sorted((tmp_path / "bert").glob("*-of-00002.*"))
    kept = two.read_bytes()
    two.write_bytes(kept[:-4])
    with pytest.raises(ValueError, match=f"^{two}: damaged"):
        load_model(tmp_path / "bert")
    two.write_bytes(one.read_bytes())
    with pytest.raises(ValueError, match=f"^{two}: has no b, which {index.name} says is in it"):
        load_model(tmp_path / "bert")
    two.unlink()
    with pytest.raises(ValueError, match=f"^{two}: no such file, but the weight_map of {index.name} names it"):
        load_model(tmp_path / "bert")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"expected a weight_map of tensors and their files, found '\[\]'"),
        ({"weight_map": {}}, "expected a weight_map of tensors and their files"),
        (
            {"weight_map": {"w": "../a.safetensors"}},
            "weight_map: w: found '../a.safetensors', allowed is a file beside",
        ),
        ({"weight_map": {"w": 3}}, "weight_map: w: found 3, allowed is a file beside"),
    ],
)
def test_an_index_of_shards_that_is_none_is_named(tmp_path: Path, content: Any, message: str) -> None:
    index = in_shards(tmp_path / "bert", "model.safetensors")
    write_json(index, content)
    with pytest.raises(ValueError, match=f"^{index}: {message}"):
        load_model(tmp_path / "bert")


def test_the_shards_of_transformers_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    theirs: Any = BertModel(BertConfig(vocab_size=40, max_position_embeddings=8, intermediate_size=32, **shape))
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    assert len(list((tmp_path / "shards").glob("model-*-of-*.safetensors"))) > 2
    found, whole = (dict(load_model(tmp_path / name).state) for name in ("shards", "whole"))
    assert_close(found, whole, rtol=0, atol=0)


def test_what_is_missing_or_damaged_in_a_model_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    with pytest.raises(ValueError, match="sft: no such model folder; run the stage that makes it"):
        load_model(folder)
    save(folder, STATE)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"model.safetensors: damaged"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"neither model.safetensors nor pytorch_model.bin"):
        load_model(folder)
