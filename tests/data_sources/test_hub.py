"""Data sets of the hub: streamed row by row, in order, kept when a fetch is cut off, and every fault in one line."""

import errno
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import datasets
import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from pipeline.data.fetching.hub import HubModelSource, HubSource
from pipeline.data.fetching.sources import fetch
from pipeline.stages import fetch as fetch_stage

HUB = HubSource(kind="hub", dataset="hub", revision="abc", splits=("train",), licence="none")


def hub_folder(project: Path, rows: list[dict[str, object]]) -> None:
    (project / "hub").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), project / "hub" / "train-00000-of-00001.parquet")


def fetched(project: Path) -> list[dict[str, object]]:
    fetch("h", HUB, project / "raw" / "h", cache=project, kept=project / "kept", settings=None)
    return [json.loads(line) for line in (project / "raw/h/train.jsonl").read_text().splitlines()]


def stream(monkeypatch: pytest.MonkeyPatch, rows: Callable[[str], Iterator[dict[str, str]]]) -> None:
    """Puts the rows of a split in the place of the hub's."""

    def load(*_: object, split: str, **settings: object) -> SimpleNamespace:
        return SimpleNamespace(reshard=lambda: rows(split))

    monkeypatch.setattr("datasets.load_dataset", load)


def answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that knows the commit of every data set."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, revision: SimpleNamespace(sha="0123"))


class CutOff:
    """A hub that goes away behind the first row of its test split until it is back, and notes the splits asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_away = True

    def rows(self, split: str) -> Iterator[dict[str, str]]:
        self.asked.append(split)
        yield {"text": split}
        if split == "test" and self.is_away:
            raise ConnectionError("reset by peer")


def configure(profile: str, sources: str) -> Path:
    path = Path("conf") / profile / "fetch.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"sources: {sources}")
    return path


SPLITS = "{h: {kind: hub, dataset: own/set, revision: main, splits: [train, test], licence: MIT}}"


def test_a_hub_data_set_is_streamed_and_no_copy_of_it_is_left_in_the_cache(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", project / "cache")
    articles: list[dict[str, object]] = [
        {"id": str(n), "title": f"T{n}", "text": f"Text {n}.\n\nEnd."} for n in range(9)
    ]
    hub_folder(project, articles)
    assert fetched(project) == articles
    assert not [path for path in (project / "cache").rglob("*") if path.suffix in (".arrow", ".parquet")]


def test_values_that_have_no_form_in_json_are_named_by_their_keys_and_kinds_however_deep_they_are(
    project: Path,
) -> None:
    time = datetime(2020, 1, 1, tzinfo=UTC)
    image: dict[str, object] = {"name": "a", "bytes": b"a"}
    written: dict[str, object] = {"text": "a", "time": None, "times": [], "image": None}
    hub_folder(project, [written, {"text": "b", "time": time, "times": [None, time, time], "image": image}])
    found = r"image\.bytes \(bytes\), time \(datetime\), times\[1\] \(datetime\)"
    with pytest.raises(ValueError, match=rf"hub data set hub \(train\), row 2: .* can be written, not {found}$"):
        fetched(project)


def test_a_connection_that_ends_within_a_data_set_is_named_with_the_rows_before(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(split: str) -> Iterator[dict[str, str]]:
        yield from ({"text": "a"}, {"text": "b"})
        raise ConnectionError("reset by peer")

    hub_folder(project, [])
    stream(monkeypatch, rows)
    with pytest.raises(ValueError, match=r"hub data set hub \(train\) cannot be loaded behind row 2: reset by peer"):
        fetched(project)


def test_a_fetch_that_was_cut_off_takes_the_splits_that_had_come_and_keeps_none_in_the_end(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = CutOff()
    answer(monkeypatch)
    stream(monkeypatch, hub.rows)
    path = configure("own", SPLITS)
    with pytest.raises(ValueError, match="reset by peer"):
        fetch_stage.main(path)
    assert not Path("data/own/raw").exists()
    hub.is_away = False
    fetch_stage.main(path)
    assert hub.asked == ["train", "test", "test"]
    files = {split: Path(f"data/own/raw/h/{split}.jsonl") for split in ("train", "test")}
    assert {split: json.loads(file.read_text())["text"] for split, file in files.items()} == {s: s for s in files}
    assert all(file.stat().st_nlink == 1 for file in files.values())


@pytest.mark.parametrize(
    ("said", "shown"), [("connection refused\nand more", "connection refused"), ("", "ConnectError")]
)
def test_a_hub_that_is_not_reached_is_an_error_of_one_line(
    said: str, shown: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, revision: str) -> None:
        raise httpx2.ConnectError(said)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", refuse)
    source = HUB.model_copy(update={"dataset": "own/set"})
    with pytest.raises(ValueError, match=f"hub data set own/set at abc is not to be had: {shown}$"):
        fetch("h", source, project / "raw" / "h", cache=project, kept=project / "kept", settings=None)


def test_the_splits_that_had_come_for_a_profile_outlive_the_fetch_of_another(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = CutOff()
    answer(monkeypatch)
    stream(monkeypatch, hub.rows)
    large = configure("large", SPLITS)
    with pytest.raises(ValueError, match="reset by peer"):
        fetch_stage.main(large)
    Path("mine").mkdir()
    Path("mine/a.txt").write_text("a")
    fetch_stage.main(configure("small", "{mine: {kind: folder, path: mine}}"))
    hub.is_away = False
    fetch_stage.main(large)
    assert hub.asked == ["train", "test", "test"]
    assert sorted(path.name for path in Path("data/large").iterdir()) == ["raw"]


def test_a_split_that_another_fetch_removed_while_it_was_taken_is_streamed_anew(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, raw = os.link, project / "raw"

    def removed_before(source: Path, target: Path) -> None:
        shutil.rmtree(project / "kept", ignore_errors=True)
        link(source, target)

    answer(monkeypatch)
    stream(monkeypatch, lambda split: iter([{"text": split}]))
    source = HUB.model_copy(update={"dataset": "own/set"})
    fetch("h", source, raw / "one", cache=project, kept=project / "kept", settings=None)
    assert list((project / "kept").rglob("train.jsonl"))
    monkeypatch.setattr(os, "link", removed_before)
    fetch("h", source, raw / "two", cache=project, kept=project / "kept", settings=None)
    assert (raw / "two/train.jsonl").read_bytes() == (raw / "one/train.jsonl").read_bytes()


TAR = "Extraction protocol for TAR archives like 'a.tar' is not implemented in streaming mode.\nSee"
FAULTS = [
    (
        RuntimeError("Dataset scripts are no longer supported, but found a.py"),
        "Dataset scripts are no longer supported",
    ),
    (NotImplementedError(TAR), "a TAR archive cannot be streamed; download and unpack it, .* kind: folder"),
    (EOFError("Compressed file ended before"), "Compressed file ended before"),
    (zlib.error("Error -3"), "Error -3"),
    (lzma.LZMAError("Corrupt input data"), "Corrupt input data"),
    (zipfile.BadZipFile("File is not a zip file"), "File is not a zip file"),
    (pa.ArrowNotImplementedError("Unsupported cast"), "Unsupported cast"),
    (pa.ArrowTypeError("a struct, not int64"), "a struct, not int64"),
    (pa.ArrowKeyError("no such column"), "no such column"),
    (TypeError("Couldn't cast array of type\nint64"), "Couldn't cast array of type"),
    (ImportError("To support decoding images, please install 'Pillow'."), "To support decoding images"),
    (httpx2.ReadTimeout(""), "ReadTimeout"),
    (datasets.exceptions.DatasetGenerationError("wrong"), "wrong"),
    (OSError(errno.EIO, "Input/output error"), ".*Input/output error"),
]


@pytest.mark.parametrize(("error", "shown"), FAULTS, ids=[type(error).__name__ for error, _ in FAULTS])
def test_whatever_the_library_raises_for_the_data_of_others_names_the_data_set_and_the_row(
    error: Exception, shown: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(split: str) -> Iterator[dict[str, str]]:
        yield {"text": "a"}
        raise error

    stream(monkeypatch, rows)
    hub_folder(project, [])
    with pytest.raises(ValueError, match=rf"^hub data set hub \(train\) cannot be loaded behind row 1: {shown}"):
        fetched(project)


LINES = b"".join(b'{"text": "%d"}\n' % number for number in range(9))


def of_tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("train.jsonl")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


UNREADABLE = {
    "train.jsonl.tar.gz": (of_tar(LINES), "a TAR archive cannot be streamed"),
    "train.jsonl.gz": (gzip.compress(LINES)[:-20], "Compressed file ended before"),
    "train.jsonl.xz": (lzma.compress(LINES)[:-40], "Compressed file ended before"),
    "train.zip": (b"PK\3\4" + b"x" * 99, "File is not a zip file"),
    "train.parquet": (b"PAR1xxxx", "Parquet magic bytes not found"),
    "hub.py": (b"", "Dataset scripts are no longer supported"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_streamed_is_an_error_of_one_line(name: str, project: Path) -> None:
    content, shown = UNREADABLE[name]
    (project / "hub").mkdir()
    (project / "hub" / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^hub data set hub \(train\) cannot be loaded: {shown}"):
        fetched(project)


@pytest.mark.parametrize("number", [errno.EIO, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("when", ["open", "write"])
def test_a_fault_of_our_own_disk_names_our_file_and_not_the_hub(
    when: str, number: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(number, os.strerror(number))

    def refuse(*_: object, **settings: object) -> Refusing:
        if when == "open":
            raise OSError(number, os.strerror(number))
        return Refusing()

    stream(monkeypatch, lambda split: iter([{"text": split}]))
    hub_folder(project, [])
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as found:
        fetch("h", HUB, project / "raw", cache=project, kept=project / "kept", settings=None)
    assert (found.value.errno, found.value.filename) == (number, str(project / "raw/train.jsonl"))


def test_a_disk_that_is_full_below_the_caches_of_the_hub_is_not_the_hubs_fault(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "blob")

    def rows(split: str) -> Iterator[dict[str, str]]:
        yield {"text": "a"}
        full()

    hub_folder(project, [])
    stream(monkeypatch, rows)
    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    model = HubModelSource(kind="hub_model", model="own/model", revision="a", licence="MIT")
    for source in (HUB, model):
        with pytest.raises(OSError, match="No space left") as found:
            fetch("h", source, project / "raw", cache=project, kept=project / "kept", settings=None)
        assert found.value.filename == "blob"


def test_the_rows_of_several_files_and_row_groups_keep_their_order_and_their_structures(project: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "id": number,
            "answers": {"text": [f"a{number}", "b"][: number % 3], "answer_start": [number, 7][: number % 3]},
        }
        for number in range(11)
    ]
    (project / "hub").mkdir()
    for part, chosen in enumerate((rows[:5], rows[5:])):
        file = project / "hub" / f"train-0000{part}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(chosen), file, row_group_size=2)
        assert pq.ParquetFile(file).num_row_groups == 3
    assert fetched(project) == rows


def test_the_rows_of_a_compressed_file_are_those_of_its_lines(project: Path) -> None:
    (project / "hub").mkdir()
    (project / "hub/train.jsonl.gz").write_bytes(gzip.compress(LINES))
    assert [json.dumps(row) for row in fetched(project)] == LINES.decode().splitlines()
