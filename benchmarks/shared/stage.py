"""A folder in which a stage of this repository runs and leaves nothing behind."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_repository() -> Iterator[None]:
    """The working directory is a repository with our code and runtimes, and nothing else, until the block ends."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pipeline").symlink_to(home / "pipeline")
        (Path(folder) / "conf").mkdir()
        (Path(folder) / "conf/runtime").symlink_to(home / "conf/runtime")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(home)
