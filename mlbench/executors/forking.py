"""Child processes, forked by a server that has loaded torch; their ends and their devices.

Children share no state with each other or with this process. The server does not import the main
module or anything else of this process, so that a script which calls ``mlbench.run`` needs no
``if __name__ == "__main__"``.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from mlbench.executors import FailureKind, log
from mlbench.types import MlbenchError, SuiteError

DUMP = signal.SIGQUIT
"""The signal at which a child writes the stacks of all its threads to its output."""
LEAST_FREE = 0.1
"""Fraction of a device's memory that must be free for a run to start there."""
KEPT = 4_000
"""Characters of output that are kept to explain a death."""
MODELS = b"m"
"""The request to the server to load what models need."""
STATUS = struct.Struct("i")
"""Form of the server's two messages about a child: its process id, and later its wait status."""

Tell = Callable[..., None]
"""Sends a message of picklable values to the process that requested the child."""


# ------------------------------------------------------------------------------------ a child's end
class Death(NamedTuple):
    """The way in which a process ended without an answer.

    Attributes:
        kind: as ``Failure.status``.
        reason: without a full stop.
    """

    kind: FailureKind
    reason: str


class ChildDied(MlbenchError):  # noqa: N818 - the child erred, not its caller
    """A process ended before it gave an answer.

    Attributes:
        death: how it ended.
        last: the last message that it sent.
        printed: the end of its output.
    """

    def __init__(self, death: Death, last: tuple[Any, ...], printed: str) -> None:
        super().__init__(death, last, printed)
        self.death, self.last, self.printed = death, last, printed

    def __str__(self) -> str:
        return f"{self.death.reason}\n{self.printed}".rstrip()


def describe_end(status: int | None) -> Death:
    """Describe a wait status; None stands for an unknown one."""
    if status is None:
        text = "no process could be started for want of memory or by a limit of their number"
        return Death("killed", f"{text}, or the one that starts them ended, and this one with it")
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        text = f"the process ended with code {code} and no result, as a plugin's os._exit({code})"
        return Death("exit", f"{text} would end it")
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return Death("killed", "killed by SIGKILL from outside; most likely memory ran out")
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return Death("killed", f"killed by {name} from outside")
    return Death("crash", f"a fault in native code ended the process ({name})")


class Child:
    """A forked process, seen from the process that requested it.

    Attributes:
        messages: its messages; the last one is ``("answer", value, time)`` or ``("raised", error,
            time)``, with the time of the machine's monotonic clock.
    """

    def __init__(self, messages: Connection, exit_pipe: int) -> None:
        self.messages, self._exit = messages, exit_pipe
        self.pid = self._read()
        self.status: int | None = None
        self._closed = False
        self.ended = self.pid is None

    def _read(self) -> int | None:
        data = os.read(self._exit, STATUS.size)
        return STATUS.unpack(data)[0] if data else None

    @property
    def waitables(self) -> list[Any]:
        """What ``connection.wait`` must watch for messages and for the end."""
        if self.ended:
            return []
        return [self._exit] if self._closed else [self._exit, self.messages]

    def receive(self) -> list[tuple[Any, ...]]:
        """Receive all waiting messages; set ``ended`` if the process has ended."""
        if not self.ended and wait([self._exit], 0):
            self.status, self.ended = self._read(), True
        found = []
        try:
            while not self._closed and self.messages.poll():
                found.append(self.messages.recv())
        except (EOFError, OSError, pickle.UnpicklingError):  # it died, perhaps while it wrote
            self._closed = True
        return found

    def signal(self, number: int) -> None:
        """Send a signal to the process and its descendants."""
        if not self.ended and self.pid is not None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it has no group yet, or has ended
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)

    def close(self) -> None:
        """Close the connections."""
        self.messages.close()
        os.close(self._exit)


# ---------------------------------------------------------------------------------------- asking it
@functools.cache
def _server(owner: int) -> socket.socket:
    """The connection to the server of process ``owner``; the first call starts the server."""
    ours, theirs = socket.socketpair()
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from mlbench.executors import fork_server; fork_server.serve({theirs.fileno()})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C reaches the user's process alone
    )
    theirs.close()

    def dismiss() -> None:
        if os.getpid() == owner:
            ours.close()
            process.wait()

    atexit.register(dismiss)
    return ours


@functools.cache
def load_models(owner: int) -> None:
    """Make the server of a process load what models need, without waiting for it."""
    with suppress(OSError):  # it has ended; the next child starts another
        _server(owner).send(MODELS)


def fork(
    function: str,
    args: tuple[Any, ...],
    output: int,
    variables: Mapping[str, str] | None = None,
    models: bool = True,
) -> Child:
    """Start ``function(*args, tell)`` in a process of its own.

    Args:
        function: ``module:name``.
        args: are pickled.
        output: file descriptor of its stdout and stderr.
        variables: environment variables, besides those of this process.
        models: first load what models need, if the server has not done so.
    """
    here, there = socket.socketpair()
    read, write = os.pipe()
    request = [MODELS if models else b"."], [there.fileno(), write, output]
    try:
        socket.send_fds(_server(os.getpid()), *request)
    except OSError:  # it has ended
        _server.cache_clear()
        socket.send_fds(_server(os.getpid()), *request)
    there.close()
    os.close(write)
    child = Child(Connection(here.detach()), read)
    environment = dict(os.environ) | dict(variables or {})
    task = function, args, str(Path.cwd()), environment, list(sys.path), sys.argv
    with suppress(OSError):  # its end says more
        child.messages.send(task)
    return child


def call(
    function: str,
    *args: Any,
    stall: float,
    relay: Callable[[str], object],
    variables: Mapping[str, str] | None = None,
    heard: Callable[..., object] = lambda *_: None,
) -> Any:
    """Compute ``function(*args, tell)`` in a process of its own; return its value.

    Args:
        function: ``module:name``.
        args: are pickled.
        stall: seconds without a message or output after which the process is ended.
        relay: gets the printed text.
        variables: environment variables, besides those of this process.
        heard: gets the parts of each message.

    Raises:
        ChildDied: the process ended without an answer.
        Exception: what the function raised.
    """
    read, write = os.pipe()
    child = fork(function, args, write, variables, models=False)
    os.close(write)
    deadline, hung, printed = time.monotonic() + stall, False, ""
    last: tuple[Any, ...] = ()

    def listen() -> None:
        nonlocal printed, deadline
        while wait([read], 0) and (data := os.read(read, 65_536)):
            text = data.decode("utf-8", "replace")
            printed, deadline = (printed + text)[-KEPT:], time.monotonic() + stall
            relay(text)

    try:
        while not child.ended:
            wait([*child.waitables, read], max(deadline - time.monotonic(), 0))
            listen()
            for message in child.receive():
                deadline, last = time.monotonic() + stall, message
                heard(*message)
            if time.monotonic() > deadline and not hung:
                hung = True
                end_hung([child])
        listen()
    finally:
        child.signal(signal.SIGKILL)
        child.close()
        os.close(read)
    if last[:1] == ("answer",):
        return last[1]
    if last[:1] == ("raised",):
        raise last[1]
    silence = f"no answer for {stall:g} s; if it was at work, give a longer --stall"
    death = Death("hung", silence) if hung else describe_end(child.status)
    raise ChildDied(death, last, printed)


def end_hung(children: Iterable[Child]) -> None:
    """Make processes write the stacks of their threads, then kill them."""
    for child in children:
        child.signal(DUMP)
    time.sleep(1.0)  # writing them is a matter of milliseconds
    for child in children:
        child.signal(signal.SIGKILL)


# ----------------------------------------------------------------------------------------- devices
def device_names(numbers: Sequence[int]) -> list[str]:
    """CUDA's names of the devices with these numbers among the visible devices."""
    visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    return [visible[number] if visible else str(number) for number in numbers]


def showing(names: Sequence[str]) -> dict[str, str]:
    """Environment variables that make these devices visible to a process; none for the CPU.

    Numbers in the user's ``CUDA_VISIBLE_DEVICES`` keep their meaning; others are as in
    ``nvidia-smi``.
    """
    ours = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if not os.environ.get("CUDA_VISIBLE_DEVICES") else {}
    return ours | {"CUDA_VISIBLE_DEVICES": ",".join(names)} if names else {}


def device_groups(numbers: Sequence[int], size: int) -> list[tuple[str, ...]]:
    """Divide visible devices into groups of ``size``, leaving out those with little free memory.

    Without ``numbers``, the only group is that of the CPU, without devices.

    Raises:
        SuiteError: no group is left.
    """
    if not numbers:
        return [()]
    names, memory = device_names(numbers), free_memory()
    full = {}
    for name in names:
        free, total = memory.get(name, (1, 1))
        if free < LEAST_FREE * total:
            full[name] = f"device {name} has only {free:,} of {total:,} MiB free"
            log.warning("%s; it is left out", full[name])
    left = [name for name in names if name not in full]
    if groups := [tuple(left[i - size : i]) for i in range(size, len(left) + 1, size)]:
        return groups
    why = "; ".join(full.values()) or f"--devices names {len(names)}"
    raise SuiteError(f"a run needs {size} devices: {why}; name others with --devices")


def free_memory() -> dict[str, tuple[int, int]]:
    """Free and total MiB of each NVIDIA device, by number and by UUID; empty if unknown."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total"]
    try:
        told = subprocess.run(
            [*query, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    found = {}
    for line in told.splitlines():
        index, uuid, free, total = (part.strip() for part in line.split(","))
        if free.isdigit() and total.isdigit():  # "[N/A]" with unified memory
            found[index] = found[uuid] = int(free), int(total)
    return found
