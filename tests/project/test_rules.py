"""What the code keeps away from, and why: versions, shortcuts and names that have gone wrong elsewhere."""

import ast
import importlib
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
from pipeline.training.base import StageModule

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


def test_the_versions_of_deepspeed_that_skipped_an_all_reduce_are_neither_allowed_nor_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = next(r.specifier for r in map(Requirement, project["dependencies"]) if r.name == "deepspeed")
    locked = re.findall(r"^deepspeed==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert len(locked) == 1 and locked[0] in allowed
    assert "0.19.8" in allowed
    assert [version for version in ("0.18.0", "0.19.0", "0.19.7") if version in allowed] == []


def test_every_locked_package_is_installed_by_its_hashes() -> None:
    recipe = (ROOT / "Makefile").read_text()
    installs = [line for line in recipe.splitlines() if "-r requirements.lock" in line]
    assert len(installs) == 1 and "pip install" in installs[0] and "--require-hashes" in installs[0]
    # An entry begins at the margin, its hashes are indented.
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text().strip())
    assert len(entries) > 100
    hashed = re.compile(r"[\w.-]+==\S+(?: ; [^\n\\]+)?(?: \\\n {4}--hash=sha256:[0-9a-f]{64})+")
    assert [entry.split()[0] for entry in entries if not hashed.fullmatch(entry)] == []


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """Calls of a function by its dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


def test_no_pickle_is_opened_that_could_run_code() -> None:
    unsafe, num_loads = [], 0
    for path in SOURCES + sorted((ROOT / "benchmarks").rglob("*.py")):
        text = path.read_text()
        if "weights_only" not in text and "torch.load" not in text:
            continue
        tree = ast.parse(text)
        for call in _calls(tree, "torch.load"):
            num_loads += 1
            if "weights_only=True" not in [ast.unparse(keyword) for keyword in call.keywords]:
                unsafe.append(f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}")
        unsafe += [
            f"{path.relative_to(ROOT)}:{node.value.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.keyword) and ast.unparse(node) == "weights_only=False"
        ]
    assert unsafe == []
    assert num_loads > 3, "torch.load has another name here"


def test_no_stage_has_backward_clipping_or_optimizer_step_of_its_own() -> None:
    # DeepSpeed does all three itself: what a stage has of its own would be passed over, or come at another time.
    clipping_and_step = {"configure_gradient_clipping", "optimizer_step"}
    own = {"backward", "on_before_backward", "on_after_backward"} | clipping_and_step
    stages = [f"pipeline.stages.{path.stem}" for path in sorted((ROOT / "pipeline/stages").glob("[a-z]*.py"))]
    modules = [importlib.import_module(name) for name in stages]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, StageModule) and value is not StageModule
    }
    assert len(classes) >= 12
    assert [f"{one.__name__}.{name}" for one in classes for name in sorted(own & vars(one).keys())] == []
    # What all of them share is in one place, where both ways are tested.
    assert own & vars(StageModule).keys() == clipping_and_step


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
