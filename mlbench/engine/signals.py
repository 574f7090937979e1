"""Signals that stop a run; training answers them between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from mlbench.types import Interrupted

EXIT_INTERRUPTED = 75
"""The exit code of a process whose run was interrupted and can be resumed (``EX_TEMPFAIL``)."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGALRM)
"""Pre-emption, Slurm's warning before it, Ctrl-C, and the end of a time budget."""


class Stop:
    """The handler of ``SIGNALS``, which remembers a request to stop.

    While a run trains, a signal only sets ``asked``; ``Interrupted`` is raised once the step has
    ended and the state is saved. At other times it is raised at once; so is
    ``KeyboardInterrupt``, on a second Ctrl-C.

    Attributes:
        asked: name of the last signal; empty if there was none.
        deferred: number of runs that train in this process.
    """

    def __init__(self) -> None:
        self.asked = ""
        self.deferred = 0

    def __call__(self, number: int, frame: object = None) -> None:
        """Handle a signal."""
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        if not self.deferred:
            raise Interrupted(self.asked)

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Defer signals within the block.

        Raises:
            Interrupted: a signal came that the block did not handle.
        """
        self.deferred += 1
        try:
            yield
        finally:
            self.deferred -= 1
        if self.asked:
            raise Interrupted(self.asked)


STOP = Stop()
"""The handler of this process."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block ``SIGNALS`` stop the run (see ``Stop``); for the main thread only."""
    before = {number: signal.signal(number, STOP) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        STOP.asked = ""
