"""The process that forks the children of ``mlbench.executors.forking``.

It has loaded torch, and, once a child needs models, timm and our own plugins. It has one thread, no
CUDA context and no code of the user. It ends with the process that started it, as do its children.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import io
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from mlbench import DISTRIBUTION, registry
from mlbench.executors.forking import DUMP, MODELS, STATUS
from mlbench.types import MlbenchError

GRACE = 30.0
"""Seconds that children get to end after the process that requested them has ended."""
_PR_SET_PDEATHSIG = 1


def serve(descriptor: int) -> NoReturn:
    """Fork on request until the other end of a socket is closed, then end all children."""
    gc.disable()  # takes a second of the imports and frees little; children enable it
    connection = socket.socket(fileno=descriptor)
    control = connection.fileno()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _load("mlbench.cli.planning", "mlbench.plan")
    parent, models = os.getppid(), False
    exits: dict[int, int] = {}
    while os.getppid() == parent:
        ready, _, _ = select.select([control, woken], [], [], 2.0)
        if woken in ready:
            os.read(woken, 4096)
            _reap(exits)
        if control in ready:
            asked, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
            if not asked:
                break
            if asked == MODELS and not models:
                models = True
                _load_models()
            if not descriptors:
                continue
            messages, exit_pipe, output = descriptors
            try:
                pid = os.fork()
            except OSError:  # the limit of processes or memory is reached: this child has ended
                for one in descriptors:
                    os.close(one)
                continue
            if pid == 0:
                for other in (control, woken, wake, exit_pipe, *exits.values()):
                    os.close(other)
                _run_task(Connection(messages), output, os.getppid())
            exits[pid] = exit_pipe
            os.close(messages)
            os.close(output)
            with suppress(OSError):  # whoever asked for it has just ended
                os.write(exit_pipe, STATUS.pack(pid))
    _end(exits)
    os._exit(0)


def _load(*modules: str) -> None:
    """Import modules; exempt them from garbage collection, so that children share their memory."""
    for name in modules:
        importlib.import_module(name)
    gc.freeze()


def _load_models() -> None:
    """Import what every run needs; no third-party plugins, whose import may do anything."""
    for plugin in registry.plugins():
        if plugin.distribution == DISTRIBUTION:
            with suppress(MlbenchError):
                plugin.load()
    _load("timm", "mlbench.executors.worker", "mlbench.engine.features", "scipy.sparse")


def _reap(exits: dict[int, int]) -> None:
    """Report the statuses of children that ended, and kill their descendants."""
    for pid in list(exits):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            with suppress(OSError):
                os.write(exits[pid], STATUS.pack(status))
            os.close(exits.pop(pid))


def _end(exits: dict[int, int]) -> None:
    """Ask the children to stop; kill those that run longer than ``GRACE``."""
    deadline = time.monotonic() + GRACE
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in exits:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)
        while exits and time.monotonic() < deadline:
            time.sleep(0.02)
            _reap(exits)


def _run_task(messages: Connection, output: int, server: int) -> NoReturn:
    """Run a task in this newly forked process, then end the process."""
    gc.enable()
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            _Unfailing(one, "w", closefd=False), "utf-8", "replace", write_through=True
        )
        for one in (1, 2)
    )
    faulthandler.enable(file=2)
    faulthandler.register(DUMP, file=2, all_threads=True)
    _die_with(server)

    def tell(*message: Any) -> None:
        with suppress(OSError):  # nobody listens any more, and this process is to end
            messages.send(message)

    code: Any = 1
    try:
        function, args, folder, variables, sys.path[:], sys.argv = messages.recv()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        importlib.invalidate_caches()
        module, _, name = function.partition(":")
        answer = getattr(importlib.import_module(module), name)(*args, tell)
        tell("answer", answer, time.monotonic())
        code = 0
    except Exception as error:
        if not isinstance(error, MlbenchError):
            traceback.print_exc()
        tell("raised", _portable(error), time.monotonic())
    except SystemExit as end:
        traceback.print_exc()
        code = end.code or 0
    finally:  # does not wait for other threads
        os._exit(code if isinstance(code, int) else 1)


def _portable(error: Exception) -> Exception:
    """The error, or its text if it cannot be pickled and unpickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_with(server: int) -> None:
    """Have this process killed when the server ends for any reason (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


class _Unfailing(io.FileIO):
    """A file that ignores errors of writing, such as a full disk."""

    def write(self, data: Any) -> int:
        """Write at once; return the length of the data."""
        with suppress(OSError):
            super().write(data)
        return len(data)
