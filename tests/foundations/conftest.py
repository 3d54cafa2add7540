"""The tiny chain, run stage by stage as far as a test needs it."""

import os
from collections.abc import Iterator

import pytest

from tests.foundations.chain import Chain
from tests.training.harness import snapshot


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """One workspace in which every stage has its configuration of the profile tiny, cut to a few steps."""
    # The server from which ranks are forked imports DeepSpeed once.
    before = os.environ.get("DS_ACCELERATOR")
    os.environ["DS_ACCELERATOR"] = "cpu"
    yield Chain(tmp_path_factory.mktemp("chain") / "workspace", snapshot(tmp_path_factory.mktemp("code")))
    if before is None:
        del os.environ["DS_ACCELERATOR"]
