"""What stops a run from outside: signals, which training answers between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from mlbench.types import Interrupted

EXIT_INTERRUPTED = 75
"""The exit code of a process whose run was interrupted and can be resumed (``EX_TEMPFAIL``)."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGALRM)
"""What stops a run: pre-emption, Slurm's warning before it, Ctrl-C, the end of a budget of time."""


class Stop:
    """Whether this process was asked to stop; a handler of ``SIGNALS``.

    While a run trains, a signal only leaves its name here: the step ends, the state is saved, and
    ``Interrupted`` is raised then. At other times it is raised at once. A second Ctrl-C does not
    wait.

    Attributes:
        deferred: how many runs of this process train.
    """

    def __init__(self) -> None:
        self.asked = ""
        self.deferred = 0

    def __call__(self, number: int, frame: object = None) -> None:
        """Handle a signal.

        Raises:
            Interrupted: unless it is deferred.
            KeyboardInterrupt: on a second Ctrl-C.
        """
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        if not self.deferred:
            raise Interrupted(self.asked)

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Defer signals within the block.

        Raises:
            Interrupted: one came too late for the block to see it.
        """
        self.deferred += 1
        try:
            yield
        finally:
            self.deferred -= 1
        if self.asked:
            raise Interrupted(self.asked)


STOP = Stop()
"""Of this process."""


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
