"""How a run stops before its end, and goes on later."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlbench.types import Interrupted

EXIT_INTERRUPTED = 75
"""The exit code of a process whose run was interrupted and can be resumed (``EX_TEMPFAIL``)."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""What stops a run: pre-emption, Slurm's warning before it, Ctrl-C."""
FILES = ("state.pt", "state.before.pt")
"""In a run's folder: the newest state, and the one before it."""


class Stop:
    """Whether this process was asked to stop; a handler of ``SIGNALS``.

    While ``deferred`` is set, which training sets around its steps, a signal only leaves its name
    here: the step ends, the state is saved, and ``Interrupted`` is raised then. At other times it
    is raised at once. A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        self.asked = ""
        self.deferred = False

    def __call__(self, number: int, frame: object = None) -> None:
        """Handle a signal.

        Raises:
            Interrupted: now is a good moment.
            KeyboardInterrupt: on a second Ctrl-C.
        """
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        if not self.deferred:
            raise Interrupted(self.asked)


STOP = Stop()
"""Of this process."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block ``SIGNALS`` stop the run (see ``Stop``); for the main thread only."""
    STOP.asked = ""
    before = {number: signal.signal(number, STOP) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def discard(folder: Path) -> None:
    """Delete the state of a run, once its record is written.

    Args:
        folder: of the run.
    """
    for name in FILES:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
