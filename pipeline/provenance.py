"""What a stage depends on: the code that it really imports, its configuration and its inputs.

The closure of imports is read from the syntax trees, so that nothing is executed and imports inside functions count.
`python -m pipeline.provenance` writes it into dvc.yaml; `--check` only compares, and ends with 1 when they differ.
"""

import argparse
import ast
import hashlib
import io
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_PACKAGE = "pipeline"
_STAGE_MODULE = re.compile(r"python -m (pipeline\.stages\.\w+) ")


def module_sources(module: str) -> tuple[Path, ...]:
    """The files of `module` and of everything in this package that it imports, directly or not, sorted.

    Paths are relative to the working directory, the repository root. A package's __init__.py counts when it holds
    more than its docstring. Raises ValueError for a module without a file.
    """
    if _source(module) is None:
        raise ValueError(f"{module}: no such module below {Path(_PACKAGE).absolute()}")
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += _imported(name, path)
    return tuple(sorted(path for path in found.values() if path.name != "__init__.py" or _has_code(path)))


def _source(module: str) -> Path | None:
    """The file of a module of this package; None for a name that is no module, such as an imported function.

    Below the working directory, the repository root; outside of one, where the package is installed.
    """
    root = Path() if Path(_PACKAGE).is_dir() else Path(__file__).parent.parent
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imported(module: str, path: Path) -> set[str]:
    """Names of this package that a file imports, and the packages that enclose them: importing runs those too."""
    names: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                # `from package import name`: the name may itself be a module.
                names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    own = [name.split(".") for name in names if name.split(".")[0] == _PACKAGE]
    return {".".join(parts[:length]) for parts in own for length in range(1, len(parts) + 1)}


def _has_code(path: Path) -> bool:
    body = ast.parse(path.read_bytes(), filename=str(path)).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def content_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and bytes of files and, below folders, of every file in them; order does not matter.

    Raises ValueError that names a path which does not exist.
    """
    total = hashlib.sha256()
    for path in sorted(paths):
        if not path.exists():
            raise ValueError(f"{path}: missing; it is an input of this stage")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                total.update(f"{digest} {file.as_posix()}\n".encode())
    return total.hexdigest()


def run_key(stage_module: str, config_path: Path, inputs: Sequence[Path]) -> str:
    """16 hexadecimal digits that stand for code, configuration and inputs: a resume checkpoint belongs to one key."""
    return content_hash([*module_sources(stage_module), config_path, *inputs])[:16]


def git_commit() -> str:
    """The commit of the working directory, with `-dirty` when tracked files differ; empty outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def with_code_deps(text: str) -> str:
    """The text of a dvc.yaml with the code dependencies of each stage made exact and all else as it was.

    Code dependencies are the .py files of this package; they come first, sorted. A stage whose file is not written
    yet gets none. Raises ValueError for a command that runs no stage of this package.
    """
    yaml = YAML()
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    for name, definition in document["stages"].items():
        stage = _repeated(definition)
        module = _stage_module(name, stage["cmd"])
        code = [path.as_posix() for path in module_sources(module)] if _source(module) else []
        others = [dep for dep in stage.get("deps", []) if not (dep.startswith(f"{_PACKAGE}/") and dep.endswith(".py"))]
        if "deps" in stage:
            stage["deps"] = [*code, *others]
        elif code:
            stage.insert(list(stage).index("cmd") + 1, "deps", code)
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def stages_without_file(text: str) -> list[str]:
    """Names of the stages in a dvc.yaml whose module does not exist."""
    stages = YAML(typ="safe").load(text)["stages"]
    return [name for name, one in stages.items() if _source(_stage_module(name, _repeated(one)["cmd"])) is None]


def _repeated(definition: Any) -> Any:
    """What a stage of dvc.yaml runs and declares: under `do` where it is repeated for each item of `foreach`."""
    return definition.get("do", definition)


def _stage_module(name: str, command: str) -> str:
    found = _STAGE_MODULE.search(command)
    if found is None:
        raise ValueError(
            f"dvc.yaml: stage {name}: expected 'python -m {_PACKAGE}.stages.NAME' in cmd, found {command!r}"
        )
    return found[1]


def main(arguments: Sequence[str]) -> int:
    """Rewrites or checks dvc.yaml; the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {_PACKAGE}.provenance", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit with 1 when dvc.yaml is out of date")
    check = parser.parse_args(arguments).check
    path = Path("dvc.yaml")
    old = path.read_text(encoding="utf-8")
    new = with_code_deps(old)
    missing = stages_without_file(old)
    if missing:
        sys.stderr.write(f"dvc.yaml: no file yet for the stages {', '.join(missing)}\n")
    if check and new != old:
        sys.stderr.write("dvc.yaml: code dependencies are out of date: run `make deps`\n")
    if not check:
        path.write_text(new, encoding="utf-8")
    return 1 if missing or (check and new != old) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
