"""Signals and the death of a parent: a training ends at the next optimizer step, everything else at once.

Lightning's own handler ends with exit code 0, so that a half-trained model counts as done, and hangs with two ranks.
"""

import logging
import os
import signal
import threading
import time
from types import FrameType

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK_SECONDS = 0.1
_SECOND_REQUEST_SECONDS = 1.0
"""Ctrl-C reaches every rank, once by itself and once more through the others: only a later one means "at once"."""

_PARENT_IS_NO_SHELL = ("LOCAL_RANK", "DVC_STAGE")
"""Variables of what started this process: torchrun or the first rank, and dvc."""


class Interrupt:
    """Asks a stage to stop. Outside training a signal ends the process; within it sets `signum`.

    A step then ends without saving when none of its micro-batches has begun for `stop_seconds`. What is between two
    steps (a validation, a search, a rollout, a checkpoint) takes its time: the request is met at the step behind it.
    """

    def __init__(self, *, stop_seconds: float = 60.0) -> None:
        self.signum = 0
        """The signal that asked to stop; 0 before any did."""
        self.is_training = False
        self._stop_seconds = stop_seconds
        self._asked = 0.0
        self._is_agreed = False
        self._is_in_step = False
        self._begun = 0.0
        self._parent = os.getppid()

    def install(self) -> None:
        """Registers our handlers; called again whenever somebody else has registered theirs."""
        for signum in _SIGNALS:
            signal.signal(signum, self._handle)

    def watch_parent(self) -> None:
        """Starts the thread that asks to stop when the parent dies, as dvc does without telling its children.

        Not where SIGHUP is ignored: under `nohup` a stage outlives the shell that started it. Ranks of a launcher and
        stages of dvc, which the environment names, are watched there too: with their parent goes what they are for.
        """
        is_under_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        if is_under_nohup and not any(name in os.environ for name in _PARENT_IS_NO_SHELL):
            return
        threading.Thread(target=self._watch, name="parent-watch", daemon=True).start()

    @property
    def exit_code(self) -> int:
        """What the shell reports for a process that this signal ended."""
        return 128 + self.signum

    def begin_micro_batch(self) -> None:
        """A step is in progress, and moves."""
        self._begun = time.monotonic()
        self._is_in_step = True

    def end_step(self) -> None:
        """Until the next micro-batch begins, nothing hurries."""
        self._is_in_step = False

    def agree(self, signum: int) -> None:
        """All ranks have taken note, and the training ends with this step: saving may take the time that it needs."""
        self._ask(signum)
        self._is_agreed = True

    def _ask(self, signum: int) -> None:
        if not self.signum:
            self.signum = signum
            self._asked = time.monotonic()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.is_training:
            _log.warning("%s: stopping", signal.Signals(signum).name)
            raise SystemExit(128 + signum)
        if not self.signum:
            self._ask(signum)
            _log.warning("%s: saving at the end of this step, then stopping", signal.Signals(signum).name)
            threading.Thread(target=self._enforce, name="stop-deadline", daemon=True).start()
        elif signum == signal.SIGINT and time.monotonic() - self._asked > _SECOND_REQUEST_SECONDS:
            raise SystemExit(128 + signum)

    def _watch(self) -> None:
        while os.getppid() == self._parent:
            time.sleep(0.5)
        _log.warning("the parent process %d is gone", self._parent)
        if self.is_training:
            os.kill(os.getpid(), signal.SIGTERM)
            # A rank that waits in a collective operation never runs its Python handler.
            self._enforce()
        else:
            os._exit(128 + signal.SIGTERM)

    def _enforce(self) -> None:
        asked = time.monotonic()
        while not (self._is_in_step and time.monotonic() - max(asked, self._begun) > self._stop_seconds):
            if self._is_agreed:
                return
            time.sleep(_LOOK_SECONDS)
        _log.error(
            "a step did not go on within %.0f s of the request to stop (PIPELINE_STOP_SECONDS): ending without saving",
            self._stop_seconds,
        )
        os._exit(128 + (self.signum or signal.SIGTERM))
