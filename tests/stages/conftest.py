"""One world of opinions for the preference stages: reward model and reference are made once."""

import os
from collections.abc import Iterator

import pytest

from tests.stages.opinions import REFERENCE, REWARD, World
from tests.training.harness import snapshot


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world, with its reward model and the reference's log-probabilities."""
    # The server from which ranks are forked imports DeepSpeed once.
    before = os.environ.get("DS_ACCELERATOR")
    os.environ["DS_ACCELERATOR"] = "cpu"
    found = World(tmp_path_factory.mktemp("world") / "workspace", snapshot(tmp_path_factory.mktemp("code")))
    found.stage("reward", REWARD).run("cpu")
    found.stage("reference", REFERENCE).run("cpu")
    yield found
    if before is None:
        del os.environ["DS_ACCELERATOR"]
