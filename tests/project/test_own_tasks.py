"""A task of the user's own is a line of conf/tasks.yaml, and then a stage like the others."""

import shutil
from pathlib import Path

import networkx
import pytest
from dvc.repo import Repo

from tests.project.dvc_file import DOCUMENT, OWN

ROOT = Path(__file__).parents[2]
TASKS = """\
tasks:
  names: {data: data/tiny/prepared/tasks/names, start: models/tiny/pretrain_bert}
  reviews: {data: own-files, start: a-bert}
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The graph with two own tasks, as dvc reads it."""
    folder = tmp_path_factory.mktemp("graph")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "conf/profile.yaml").write_text("profile: tiny\n")
    (folder / "conf/tasks.yaml").write_text(TASKS)
    for name in ("names", "reviews"):
        shutil.copy(ROOT / "conf/tiny/finetune/polarity.yaml", folder / f"conf/tiny/finetune/{name}.yaml")
    return Repo.init(str(folder), no_scm=True)


def test_an_own_task_follows_its_data_its_start_and_its_configuration_and_leads_to_the_report(graph: Repo) -> None:
    stages = {stage.name: stage for stage in graph.index.stages}
    after = graph.index.graph
    for name, makers in (("names", {"prepare", "pretrain_bert"}), ("reviews", set())):
        stage = stages[f"{OWN}@{name}"]
        assert {one.name for one in after.successors(stage)} == makers
        assert stages["report"] in networkx.ancestors(after, stage)
        assert [(Path(one.fs_path).name, one.exists) for one in stage.params] == [(f"{name}.yaml", True)]
    wanted = {str(Path(graph.root_dir) / path) for path in ("own-files", "a-bert")}
    assert wanted <= {one.fs_path for one in stages[f"{OWN}@reviews"].deps}


def test_an_own_task_is_run_and_written_as_an_item_of_finetune() -> None:
    finetune, own = (dict(DOCUMENT["stages"][name]["do"]) for name in ("finetune", OWN))
    code, own_code = ([dep for dep in one.pop("deps") if dep.endswith(".py")] for one in (finetune, own))
    assert (own, own_code) == (finetune, code)
