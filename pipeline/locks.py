"""One run of a stage at a time: a lock of the operating system, which ends with the process that holds it."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)

_LOCK = "lock"
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What flock(2) says on a file system without locks."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a stage, by its local folder, against a second run; ValueError names the host and the process that hold it.

    A file system without locks is warned of and no more: a training on it is worth more than this safeguard.
    """
    path = folder / _LOCK
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ValueError(
                f"{path}: another run holds this stage, process {lock.read().strip() or 'unknown'}; "
                "wait for it or end it"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise OSError(error.errno, error.strerror, str(path)) from error
            _log.warning(
                "%s: the file system of this folder has no locks (%s), so that two runs of this stage are not kept "
                "apart: start one alone, or have it mounted with locks (Lustre: -o flock, NFS: its lock service)",
                folder,
                error.strerror,
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
