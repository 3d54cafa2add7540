"""A project folder of its own for every test: stages write below the working directory."""

from pathlib import Path

import pytest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder that is the working directory."""
    (tmp_path / "conf" / "own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
