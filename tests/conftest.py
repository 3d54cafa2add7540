"""Shapes in signatures are checked whenever the tests run, and by nothing in production."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from jaxtyping import install_import_hook

install_import_hook("pipeline", "beartype.beartype")
