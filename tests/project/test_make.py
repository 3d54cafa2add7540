"""What `make install` looks at before it downloads anything, and that the images keep what they make."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project without .venv, whose Python and df are scripts that only say what the test wants."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    says(tmp_path, "python3.11", 'test "$1" = -V || { echo "begins to install" >&2; exit 9; }; echo Python 3.11.2')
    says(tmp_path, "df", "printf 'Filesystem 1024-blocks Used Available\\n/dev/a 9 9 3000000\\n'")
    return tmp_path


def says(folder: Path, program: str, script: str) -> None:
    path = folder / "bin" / program
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def install(folder: Path) -> str:
    """What `make install` says before it fails, as it does here."""
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["make", "install"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr


def test_an_installation_begins_where_the_python_and_the_room_are_right(folder: Path) -> None:
    assert install(folder).startswith("begins to install")


def test_another_python_is_refused_before_anything_is_installed(folder: Path) -> None:
    says(folder, "python3.11", "echo Python 3.12.4")
    assert install(folder).startswith("make: python3.11 is Python 3.12.4; name a Python 3.11 with PYTHON=\n")


def test_a_disk_without_room_is_refused_before_anything_is_installed(folder: Path) -> None:
    says(folder, "df", "printf 'Filesystem 1024-blocks Used Available\\n/dev/a 9 9 2999999\\n'")
    assert install(folder).startswith(f"make: 2999 MB free in {folder}; .venv needs 3000 MB, and more with CUDA\n")


def test_what_a_container_makes_is_on_volumes_whose_folders_belong_to_the_trainer() -> None:
    composed = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    mounts = dict(one.split(":") for one in composed["services"]["trainer"]["volumes"])
    assert {"/app/models", "/app/reports", "/app/.dvc/cache", "/app/.pipeline"} == set(mounts.values())
    assert set(mounts) <= set(composed["volumes"])
    (made,) = re.findall(r"core.no_scm true && mkdir -p (.*)", (ROOT / "docker/Dockerfile").read_text())
    assert {f"/app/{folder}" for folder in made.split()} == set(mounts.values())
