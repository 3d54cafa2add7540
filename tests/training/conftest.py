"""Workspaces of the toy stage."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.harness import Workspace, snapshot

TOY = {
    "training": {
        "seed": 3,
        "batching": {"kind": "tokens", "tokens_per_step": 200},
        "duration": {"kind": "epochs", "num_epochs": 3},
        "optimizer": {"lr": 0.01, "clip_norm": 2.5, "weight_decay": 0.1},
        "schedule": {"kind": "cosine", "num_warmup_steps": 4},
        "validate_every": 7,
        "checkpoint_every": 5,
    },
    "dropout": 0.0,
}

NewToy = Callable[..., Workspace]
"""Makes a workspace of the toy stage; keywords change its configuration."""


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code as it was when the tests began."""
    return snapshot(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="session")
def new_toy(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[NewToy]:
    """Makes workspaces of the toy stage."""

    def make(**changes: Any) -> Workspace:
        root = tmp_path_factory.mktemp("toy") / "workspace"
        workspace = Workspace(root, code, module="tests.training.toy_stage", config="conf/tiny/toy.yaml")
        (root / "conf/tiny").mkdir()
        (root / "conf/tiny/toy.yaml").write_text(yaml.safe_dump(TOY | changes))
        return workspace

    # The server from which ranks are forked imports DeepSpeed once.
    before = os.environ.get("DS_ACCELERATOR")
    os.environ["DS_ACCELERATOR"] = "cpu"
    yield make
    if before is None:
        del os.environ["DS_ACCELERATOR"]
