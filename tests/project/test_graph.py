"""dvc.yaml tells the truth: code from real imports, inputs as the stages declare them, outputs where they write."""

import ast
import importlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import Any

import networkx
import pytest
from dvc.repo import Repo

from pipeline.config import load
from pipeline.layout import Layout
from pipeline.provenance import (
    content_hash,
    git_commit,
    main,
    module_sources,
    run_key,
    stages_without_file,
    with_code_deps,
)
from pipeline.stages.dpo import DPOConfig
from pipeline.stages.reference import ReferenceConfig
from tests.project.conftest import schema_of
from tests.project.dvc_file import DOCUMENT, STAGES, fill, items, paths

ROOT = Path(__file__).parents[2]
PROFILES = ("cpu", "tiny", "paper")
BESIDE_THE_CHAIN = {
    "conf/paper/finetune/squad.yaml": "finetune",
    "conf/paper/finetune/squad2.yaml": "finetune",
    "conf/paper/pretrain_bert_large.yaml": "pretrain_bert",
    "conf/paper/translate/big.yaml": "translate",
    "conf/paper/translate/iwslt.yaml": "translate",
}
"""Published sizes that no stage of the graph has room for, and the stages that run them by hand."""


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_code_dependencies_are_the_real_imports_of_each_stage() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert stages_without_file(text) == []
    assert with_code_deps(text) == text, "run `make deps`"


CASES = [(stage, item, profile) for stage in STAGES for item in items(stage) for profile in PROFILES]


@pytest.mark.parametrize(("stage", "item", "profile"), CASES)
def test_a_stage_runs_its_module_on_the_configuration_that_it_tracks(stage: str, item: str, profile: str) -> None:
    config = f"conf/{profile}/{stage}/{item}.yaml" if item else f"conf/{profile}/{stage}.yaml"
    command = fill(STAGES[stage]["cmd"], stage, profile, item)
    assert command == f'exec env PATH="$PWD/.venv/bin:$PATH" python -m pipeline.stages.{stage} {config}'
    assert paths(stage, "params", profile, item) == {config}
    assert load(Path(config), schema_of(stage))


def test_every_configuration_of_a_profile_is_that_of_a_stage_or_named_beside_the_chain() -> None:
    used = {f"conf/{profile}/{stage}/{item}".rstrip("/") + ".yaml" for stage, item, profile in CASES}
    found = {path.as_posix() for profile in PROFILES for path in Path("conf", profile).rglob("*.yaml")}
    assert found - used == set(BESIDE_THE_CHAIN)
    for path, stage in BESIDE_THE_CHAIN.items():
        assert load(Path(path), schema_of(stage))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_pairs_of_the_reference_are_those_of_dpo(profile: str) -> None:
    reference = load(Path(f"conf/{profile}/reference.yaml"), ReferenceConfig)
    assert reference.pairs == load(Path(f"conf/{profile}/dpo.yaml"), DPOConfig).pairs


class Opened(Exception):
    """Carries what a stage declares, in place of running it."""


@contextmanager
def _declare(module: str, path: Path, config: Any, *, seed: int, inputs: Sequence[Path]) -> Iterator[None]:
    raise Opened(sorted(source.as_posix() for source in inputs))
    yield


TRAINED = [case for case in CASES if case[0] not in ("fetch", "prepare", "tokenize", "report")]


@pytest.mark.parametrize(("stage", "item", "profile"), TRAINED)
def test_data_dependencies_are_the_inputs_that_the_stage_declares(
    stage: str, item: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"pipeline.stages.{stage}")
    monkeypatch.setattr(module, "stage_run", _declare)
    config = Path("conf", profile, stage, f"{item}.yaml") if item else Path("conf", profile, f"{stage}.yaml")
    with pytest.raises(Opened) as declared:
        module.main(config)
    data = {path for path in paths(stage, "deps", profile, item) if not path.endswith(".py")}
    assert sorted(data) == declared.value.args[0]
    layout = Layout.of(config)
    assert {layout.output.as_posix(), layout.metrics.as_posix()} <= paths(stage, "outs", profile, item)


@pytest.mark.parametrize(("stage", "item", "profile"), TRAINED)
def test_a_stage_declares_the_curve_samples_and_predictions_that_it_writes_and_no_others(
    stage: str, item: str, profile: str
) -> None:
    layout = Layout.of(Path("conf", profile, stage, item).with_suffix(".yaml"))
    written = {layout.output, layout.metrics}
    written |= {layout.curve} if "history" in _given_to_finish(stage) else set()
    written |= {layout.samples} if "samples" in _given_to_finish(stage) else set()
    written |= {layout.predictions} if "predictions" in _given_to_finish(stage) else set()
    assert paths(stage, "outs", profile, item) == {path.as_posix() for path in written}


def _given_to_finish(stage: str) -> set[str]:
    """The names of what a stage's source hands to `StageRun.finish` beside its metrics."""
    calls = [
        node
        for node in ast.walk(ast.parse(Path(f"pipeline/stages/{stage}.py").read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "finish"
    ]
    assert len(calls) == 1, stage
    return {keyword.arg or "" for keyword in calls[0].keywords}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_learning_curve_is_drawn(profile: str) -> None:
    plots = DOCUMENT["plots"]
    drawn = {path.replace("${profile}", profile) for plot in plots for path in plot}
    outs = {path for stage, item, of in CASES if of == profile for path in paths(stage, "outs", profile, item)}
    folder = f"metrics/{profile}/curves/finetune"
    assert folder in drawn, "of tasks that conf/tasks.yaml names too"
    assert drawn - {folder} == {path for path in outs if path.endswith(".csv") and Path(path).parent != Path(folder)}
    assert {plot["template"] for one in plots for plot in one.values()} == {"curve"}
    assert Path(".dvc/plots/curve.json").is_file()


def test_the_metrics_of_dvc_are_those_of_the_summary() -> None:
    assert {stage: list(one["metrics"][0]) for stage, one in STAGES.items() if "metrics" in one} == {
        "report": ["reports/${profile}/headline.json"]
    }


@pytest.fixture(scope="module", params=PROFILES)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The graph as dvc reads it under each profile, outside git."""
    folder = tmp_path_factory.mktemp("graph")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "conf/profile.yaml").write_text(f"profile: {request.param}\n")
    (folder / "conf/tasks.yaml").write_text("tasks: {}\n")
    return Repo.init(str(folder), no_scm=True)


def test_dvc_reads_the_graph_its_parameters_exist_and_every_stage_leads_to_the_report(graph: Repo) -> None:
    stages = {stage.name: stage for stage in graph.index.stages}
    assert [param for stage in stages.values() for param in stage.params if not param.exists] == []
    assert {
        "word_vectors@svd",
        "translate@transformer",
        "finetune@polarity",
        "finetune@polarity-gpt",
        "pretrain_bert",
    } <= set(stages)
    assert {name.partition("@")[0] for name in stages} == set(STAGES)
    needed = networkx.descendants(graph.index.graph, stages["report"])
    assert {stage.name for stage in needed} == set(stages) - {"report"}


# The closure of imports, on a small package.

FILES = {
    "__init__.py": '"""Docstring only."""\n',
    "stages/__init__.py": "",
    "stages/one.py": "from pipeline.data import rows\n\ndef main():\n    from pipeline.deep import hidden\n",
    "data/__init__.py": "DEFAULT = 1\n",
    "data/rows.py": "import json\nfrom pipeline.base import thing\n",
    "base.py": "from . import other\nthing = 1\n",
    "other.py": "import pipeline.base\n",
    "deep/__init__.py": '"""Docstring only."""\n',
    "deep/hidden.py": "",
    "unused.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "pipeline" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_closure_follows_names_relative_lazy_and_circular_imports(package: Path) -> None:
    found = [path.as_posix() for path in module_sources("pipeline.stages.one")]
    assert found == [
        "pipeline/base.py",
        "pipeline/data/__init__.py",
        "pipeline/data/rows.py",
        "pipeline/deep/hidden.py",
        "pipeline/other.py",
        "pipeline/stages/one.py",
    ]
    with pytest.raises(ValueError, match=r"pipeline.stages.two: no such module"):
        module_sources("pipeline.stages.two")


def test_the_run_key_follows_code_configuration_and_inputs_and_nothing_else(package: Path) -> None:
    Path("data").mkdir()
    config, table = Path("one.yaml"), Path("data/table.txt")
    config.write_text("a: 1\n")
    table.write_text("1\n")

    def key() -> str:
        return run_key("pipeline.stages.one", config, [Path("data")])

    first = key()
    Path("pipeline/unused.py").write_text("x = 1\n")
    config.touch()
    assert key() == first
    seen = {first}
    for path in (config, table, Path("pipeline/deep/hidden.py")):
        before = path.read_text()
        path.write_text(before + "# changed\n")
        seen.add(key())
        path.write_text(before)
    table.rename("data/renamed.txt")
    seen.add(key())
    assert len(seen) == 5


def test_a_missing_input_is_named(package: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("models/gone: missing")):
        content_hash([Path("models/gone")])


DVC_YAML = """\
# A comment that stays.
stages:
  one:
    cmd: python -m pipeline.stages.one conf/${profile}/one.yaml
    deps:
      - pipeline/unused.py
      - data/${profile}/raw
    params:
      - conf/${profile}/one.yaml:
"""


REPEATED = """\
stages:
  one:
    foreach:
      first: {start: this}
      second: {start: that}
    do:
      cmd: python -m pipeline.stages.one conf/${profile}/one/${key}.yaml
      deps:
        - pipeline/unused.py
        - models/${profile}/${item.start}
"""


@pytest.mark.parametrize("text", [DVC_YAML, REPEATED])
def test_generating_dependencies_changes_nothing_but_the_code(package: Path, text: str) -> None:
    Path("dvc.yaml").write_text(text)
    assert main(["--check"]) == 1
    assert Path("dvc.yaml").read_text() == text
    assert main([]) == 0
    code = "".join(f"- {path}\n" for path in module_sources("pipeline.stages.one"))
    wanted = re.sub(r"( *)- pipeline/unused.py\n", lambda found: indent(code, found[1]), text)
    assert Path("dvc.yaml").read_text() == wanted
    assert main(["--check"]) == 0


def test_outside_a_repository_there_is_no_commit(package: Path) -> None:
    assert git_commit() == ""
