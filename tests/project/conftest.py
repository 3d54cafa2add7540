"""What several tests of the project as a whole need."""

import ast
import importlib
from pathlib import Path

import pytest

from pipeline.config import Config
from tests.project.toy_number import write_toy_repository

ROOT = Path(__file__).parents[2]


def schema_of(stage: str) -> type[Config]:
    """The configuration class that a stage gives to the loader, read from its source: `load(path, Schema)`."""
    tree = ast.parse((ROOT / f"pipeline/stages/{stage}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [
        call.args[1].id
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "load" and isinstance(call.args[1], ast.Name)
    ]
    assert len(names) == 1, f"{stage}: expected one load(path, Schema), found {names}"
    schema: type[Config] = getattr(importlib.import_module(f"pipeline.stages.{stage}"), names[0])
    return schema


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with one number of two seeds."""
    monkeypatch.chdir(tmp_path)
    write_toy_repository(tmp_path)
    return tmp_path
