"""Extraction from untrusted archives: only what is named, only below the folder, only so much."""

import bz2
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.data.fetching.archives import extract


def tar_of(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """A tar.gz of files and symbolic links."""
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            bundle.addfile(info)
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return path


@pytest.mark.parametrize("ending", ["tar.gz", "whl"])
def test_only_the_named_files_are_written(tmp_path: Path, ending: str) -> None:
    files = {"p-1/data/a.txt": b"a", "p-1/data/b.py": b"evil()", "p-1/setup.py": b"evil()"}
    build = tar_of if ending == "tar.gz" else zip_of
    written = extract(build(tmp_path / f"p-1.{ending}", files), ["data/*.txt"], tmp_path / "out", max_bytes=100)
    assert written == [tmp_path / "out/p-1/data/a.txt"]
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == written
    assert written[0].read_bytes() == b"a"


def test_an_archive_within_the_archive_is_reached_by_an_exclamation_mark(tmp_path: Path) -> None:
    inner = tar_of(tmp_path / "inner.tar.gz", {"d/x.txt": b"x", "d/y.txt": b"y"}).read_bytes()
    outer = tar_of(tmp_path / "outer.tar.gz", {"p/res/inner.tar.gz": inner})
    written = extract(outer, ["res/inner.tar.gz!d/x.txt"], tmp_path / "out", max_bytes=100)
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == ["d/x.txt"]


def test_a_compressed_file_is_written_decompressed(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "p.tar.gz", {"p/wiki.xml.bz2": bz2.compress(b"text")})
    (written,) = extract(archive, ["wiki.xml.bz2"], tmp_path / "out", max_bytes=100)
    assert written.name == "wiki.xml"
    assert written.read_bytes() == b"text"


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/etc/outside.txt", "p/../../outside.txt", "p\\..\\..\\outside.txt"]
)
@pytest.mark.parametrize("ending", ["tar.gz", "whl"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, ending: str) -> None:
    build = tar_of if ending == "tar.gz" else zip_of
    archive = build(tmp_path / f"p.{ending}", {name: b"x"})
    with pytest.raises(ValueError, match="leaves the folder"):
        extract(archive, ["*.txt"], tmp_path / "out", max_bytes=100)
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "p.tar.gz", {}, {"p/secret.txt": "/etc/passwd"})
    with pytest.raises(ValueError, match=r"p/secret.txt is a link"):
        extract(archive, ["*.txt"], tmp_path / "out", max_bytes=10_000)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("p/secret.txt")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as bundle:
        bundle.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match=r"p/secret.txt is a link"):
        extract(tmp_path / "p.whl", ["*.txt"], tmp_path / "out", max_bytes=10_000)


def test_a_decompression_bomb_stops_at_the_bound(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "p.tar.gz", {"p/bomb.txt.bz2": bz2.compress(b"0" * 10_000_000)})
    with pytest.raises(ValueError, match="more than max_bytes = 5,000 bytes"):
        extract(archive, ["*.bz2"], tmp_path / "out", max_bytes=5_000)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 5_000


def test_a_pattern_without_a_fit_is_named(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "p.tar.gz", {"p/a.txt": b"a"})
    with pytest.raises(ValueError, match=r"p.tar.gz: nothing in this archive fits missing/\*.json"):
        extract(archive, ["a.txt", "missing/*.json"], tmp_path / "out", max_bytes=100)


@pytest.mark.parametrize("name", ["p.tar.gz", "p.whl"])
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match=f"{name}: damaged archive"):
        extract(tmp_path / name, ["*.txt"], tmp_path / "out", max_bytes=100)


def test_a_cut_off_archive_is_named(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "p.tar.gz", {"p/a.txt": bytes(range(256)) * 100})
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="damaged archive"):
        extract(path, ["a.txt"], tmp_path / "out", max_bytes=100_000)
