"""What the code keeps away from, and why: versions, shortcuts and names that have gone wrong elsewhere."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from packaging.requirements import Requirement

from pipeline.config import load
from pipeline.runtime import RuntimeConfig, prepare_process

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "pipeline").rglob("*.py"))


@pytest.mark.parametrize(
    "name",
    [
        # Asks for the loaders too early, and does not know that a step is a planned batch.
        "estimated_stepping_batches",
        # Optimizers and operators that DeepSpeed compiles when they are first used.
        "CPUAdam",
        "FusedAdam",
        "FusedLamb",
        "op_builder",
    ],
)
def test_no_module_uses(name: str) -> None:
    assert [path.name for path in SOURCES if name in path.read_text()] == []


def test_deepspeed_is_imported_by_nothing_that_runs_without_it() -> None:
    modules = [f"pipeline.stages.{path.stem}" for path in sorted((ROOT / "pipeline/stages").glob("[a-z]*.py"))]
    code = f"import sys\nimport {', '.join(modules)}\nprint('deepspeed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.fixture
def as_before() -> Iterator[None]:
    """Leaves the process as it was for the tests that follow."""
    threads, precision, state = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.set_rng_state(state)


@pytest.mark.usefixtures("as_before")
def test_a_prepared_process_computes_without_denormal_numbers() -> None:
    smallest = torch.tensor([torch.finfo(torch.float32).tiny])
    assert (smallest / 4).item() > 0
    prepare_process(load(ROOT / "conf/runtime/cpu.yaml", RuntimeConfig), 1)
    assert (smallest / 4).item() == 0


def test_an_image_tells_dvc_that_there_is_no_git_before_its_command_runs() -> None:
    text = (ROOT / "docker/Dockerfile").read_text()
    copied, told, run = (text.index(part) for part in ("trainer . .\n", "core.no_scm true", '"make", "repro"]'))
    assert copied < told < run


def test_the_versions_of_lightning_that_ran_malware_are_neither_allowed_nor_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = next(r.specifier for r in map(Requirement, project["dependencies"]) if r.name == "lightning")
    locked = re.findall(r"^(?:pytorch-)?lightning==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked and all(version in allowed for version in locked)
    for version in ("2.6.2", "2.6.3"):
        assert version not in allowed and version not in locked
        assert f"!={version}" in str(allowed), "a lower bound may fall one day"


def _words(value: Any) -> Iterator[str]:
    """Every key and every text of a configuration."""
    match value:
        case dict():
            for key, one in value.items():
                yield str(key)
                yield from _words(one)
        case list():
            for one in value:
                yield from _words(one)
        case str():
            yield value


def test_no_configuration_calls_the_rated_texts_a_task_of_glue() -> None:
    # Most of the rated movie snippets are in the development set of SST-2: a score on it would be one on training data.
    named = [
        f"{path.relative_to(ROOT)}: {word}"
        for profile in ("cpu", "tiny", "paper")
        for path in (ROOT / "conf" / profile).rglob("*.yaml")
        for word in (path.stem, *_words(yaml.safe_load(path.read_text())))
        if re.search(r"\bglue\b|\bsst\b|sst-?2|\bstsb?\b", word, re.IGNORECASE)
    ]
    assert named == []
    assert "development set of SST-2" in (ROOT / "README.md").read_text()
