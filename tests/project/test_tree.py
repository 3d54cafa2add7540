"""What holds for the tree as a whole: sizes, borders, documentation, and files that agree with each other."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pipeline
from pipeline.config import Config
from tests.project.config_reads import owner, reads_of

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked(*patterns: str) -> list[Path]:
    """Files of the project; those that git tracks where there is git, else those of the source folders."""
    try:
        listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        sources = ("pipeline", "tests", "conf", "docker", "benchmarks")
        return [path for folder in sources for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_a_source_file_is_one_idea() -> None:
    long = {str(path): length for path in tracked("*.py") if (length := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_no_tracked_file_names_a_machine_or_a_package_index() -> None:
    places = [r"/home/\w", r"/root/", r"/Users/\w", r"[A-Z]:\\Users"]
    if len(ROOT.parts) > 2 and "tmp" not in ROOT.parts:
        places.append(re.escape(str(ROOT.parent)) + "/")
    configured = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    places += [re.escape(host) for host in re.findall(r"://(?:[^/@\s']*@)?([\w.-]+)", configured.stdout)]
    pattern = re.compile("|".join(places))
    this = Path(__file__).resolve()
    found = []
    for path in tracked():
        if path == this or path.suffix in (".png", ".svg"):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(text)]
    assert found == []


def test_the_lock_is_complete_hashed_and_leaves_torch_to_its_own_line() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert re.findall(r"^(?:torch|nvidia.*|cuda.*|triton)==", text, re.MULTILINE) == []
    assert re.findall(r"^-|https?:|file:", text, re.MULTILINE) == []
    pinned = set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) == len(pinned) and all("--hash=sha256:" in block for block in blocks)
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    names = {re.split(r"[^\w.-]", one)[0].lower().replace("_", "-").replace(".", "-") for one in wanted}
    assert names - {"torch"} <= {name.lower().replace("_", "-").replace(".", "-") for name in pinned}


def test_the_version_of_torch_is_the_same_wherever_it_stands() -> None:
    (wanted,) = (one for one in PROJECT["project"]["dependencies"] if one.startswith("torch=="))
    for path in [ROOT / "Makefile", ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *tracked("docker")]:
        assert set(re.findall(r"\btorch==[\w.+]+", path.read_text())) <= {wanted}, path


def test_every_command_of_the_documentation_is_a_target_of_make() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    code = "\n".join(part for page in pages for part in _code(page.read_text()))
    named = set(re.findall(r"\bmake ([a-z]\w*)", code))
    assert {"repro", "test", "deps", "check", "bench"} <= named <= targets


def _code(markdown: str) -> list[str]:
    return re.findall(r"```.*?```", markdown, re.DOTALL) + re.findall(r"`[^`\n]+`", markdown)


def test_import_contracts_hold() -> None:
    result = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_objectives_import_torch_and_jaxtyping_and_nothing_else() -> None:
    allowed = {"torch", "jaxtyping", *sys.stdlib_module_names}
    for path in sorted((ROOT / "pipeline/objectives").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("pipeline.objectives"), f"{path.name}: {name}"


def configs() -> Iterator[type[Config]]:
    """Every configuration class of the package."""
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        # A module of its own process, and one that only a model server imports.
        if module.name not in (
            "pipeline.tracking.helper",
            "pipeline.inference.mlflow_model",
            "pipeline.tracking.mlflow_runs",
        ):
            importlib.import_module(module.name)
    waiting = [Config]
    while waiting:
        found = [one for one in waiting.pop().__subclasses__() if one.__module__.startswith("pipeline.")]
        waiting += found
        yield from found


@pytest.fixture(scope="module")
def fields() -> dict[str, str]:
    """The description of every field of every configuration."""
    return {
        f"{one.__module__}.{one.__qualname__}.{name}": one.model_fields[name].description or ""
        for one in configs()
        for name in one.model_fields
        # The tag of a variant says what the class docstring says.
        if name != "kind"
    }


def test_every_configuration_field_is_documented_under_it(fields: dict[str, str]) -> None:
    assert [name for name, description in fields.items() if not description] == []


def unread(configurations: Iterable[type[Config]], modules: Iterable[ModuleType]) -> list[str]:
    """The fields that no module reads as fields of their own class."""
    reads = reads_of(*modules)
    return sorted(
        {
            f"{owner(one, name).__qualname__}.{name}"
            for one in configurations
            for name in one.model_fields
            # `match` and the choice of a variant read the tag.
            if name != "kind" and (owner(one, name), name) not in reads
        }
    )


def test_every_configuration_field_is_read_as_a_field_of_its_class(fields: dict[str, str]) -> None:
    # The doctor only foretells what a stage would do.
    modules = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("pipeline.") and not name.startswith("pipeline.commands.doctor") and module.__file__
    ]
    assert unread(configs(), modules) == []


def test_a_dead_field_is_found_even_where_another_class_has_a_field_of_its_name() -> None:
    module = importlib.import_module("tests.project.planted")
    planted = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Config)]
    assert unread([one for one in planted if one.__module__ == module.__name__], [module]) == [
        "Inner.checked",
        "Inner.size",
        "Part.dumped",
    ]
