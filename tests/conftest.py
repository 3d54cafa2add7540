"""Shapes in signatures are checked whenever the tests run, and by nothing in production."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
# No process beside each training that a test starts; the tests of tracking take this back.
os.environ["PIPELINE_TRACKING"] = "local"

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("pipeline", "beartype.beartype")


@pytest.fixture
def as_before() -> Iterator[None]:
    """Leaves the process as it was for the tests that follow."""
    threads, precision, state = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.set_rng_state(state)
