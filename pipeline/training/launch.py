"""The command line of a stage: `python -m pipeline.stages.NAME conf/PROFILE/NAME.yaml`.

Bad input, a full disk and a loss that is no number end in one clear message on standard error and exit code 2;
anything else is a bug and keeps its traceback.
"""

import errno
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def launch(main: Callable[[Path], None]) -> None:
    """Runs a stage with the configuration file named on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # A module that is run is called __main__; its own name is in its specification.
    found = sys.modules[main.__module__].__spec__
    usage = f"usage: python -m {found.name if found else main.__module__} conf/PROFILE/STAGE.yaml"
    if sys.argv[1:] in (["-h"], ["--help"]):
        sys.stdout.write(f"{usage}\n")
        return
    if len(sys.argv) != 2:
        raise SystemExit(usage)
    try:
        main(Path(sys.argv[1]))
    except KeyboardInterrupt as stop:
        # Before the stage has handlers of its own.
        sys.stderr.write("SIGINT: stopping\n")
        raise SystemExit(128 + signal.SIGINT) from stop
    except (ValueError, FloatingPointError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
    except OSError as error:
        sys.stderr.write(f"error: {_explain(error)}\n")
        raise SystemExit(2) from error


def _explain(error: OSError) -> str:
    """One line for a fault of the file system."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; nothing half-written is kept: make room and run the same command again"
    return f"{where}{error.strerror or error}"
