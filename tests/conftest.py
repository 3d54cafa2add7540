"""Shapes in signatures are checked whenever the tests run, and by nothing in production."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
# No process beside each training that a test starts; the tests of tracking take this back.
os.environ["PIPELINE_TRACKING"] = "local"

from jaxtyping import install_import_hook

install_import_hook("pipeline", "beartype.beartype")
