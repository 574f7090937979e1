"""The processes of a run: their ranks, how they exchange values, and how they are launched.

A process reads its rank from the variables that torch's elastic launcher sets, so that
``mlbench run --gpus 2 ...`` and ``torchrun --nproc-per-node 2 -m mlbench run ...`` are the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from mlbench.types import DivergedError, Interrupted, MlbenchError, SuiteError

T = TypeVar("T")

TIMEOUT = timedelta(hours=4)
"""How long processes wait for each other; the leader alone checks images and measures."""


@dataclass(frozen=True)
class World:
    """The processes of one run, seen from this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """True for the process that writes and prints."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The leader's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def ask_leader(self, compute: Callable[[], T]) -> T:
        """Compute on the leader alone; every process gets its answer or raises its error."""
        answer: T | None = None
        problem: Exception | None = None
        if self.leads:
            try:
                answer = compute()
            except Exception as error:  # without it the others would wait forever
                problem = error
        answer, problem = self.broadcast((answer, problem))
        if problem is not None:
            raise problem
        return answer

    @contextmanager
    def fatal_errors(self) -> Iterator[None]:
        """Errors in this block are fatal for the whole process group.

        A ``MlbenchError`` would let the other runs of a suite go on, but in this block it may be
        raised by one process while the others wait for it. ``DivergedError`` is raised by all, and
        ``Interrupted`` ends all.
        """
        try:
            yield
        except (DivergedError, Interrupted):
            raise
        except MlbenchError as error:
            if self.size == 1:
                raise
            raise RuntimeError(str(error)) from error

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise mean over the processes; not finite where any process is not."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def broadcast_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the leader."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait until every process calls this."""
        if self.size > 1:
            dist.barrier()


def join(device: str) -> World:
    """Join the processes of this launch; a world of one if there was none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    world = World(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    if device.startswith("cuda"):
        torch.cuda.set_device(world.local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    return world


def leave(code: int) -> NoReturn:
    """Exit with a code that all processes share.

    Waits for the others, because a launcher kills them as soon as one exits with an error, perhaps
    before the leader has printed its message. Skips the interpreter's shutdown, during which a
    thread of gloo may abort the process; its signal would hide the exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if dist.is_initialized():
        dist.barrier()
    os._exit(code)


def launched() -> bool:
    """True if a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(processes: int, argv: Sequence[str], device: str) -> int:
    """Run ``mlbench argv`` in several processes on this machine; returns their exit code.

    Raises:
        SuiteError: there are fewer GPUs than processes.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    if device.startswith("cuda") and processes > torch.cuda.device_count():
        raise SuiteError(
            f"--gpus {processes} but this machine has {torch.cuda.device_count()} CUDA devices; "
            "give at most that many, or --device cpu for processes on the CPU"
        )
    # By default every process uses all cores, and under torchrun one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    arguments = ["--standalone", f"--nproc-per-node={processes}", "-m", "mlbench", *argv]
    try:
        run(parse_args(arguments))
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except (SignalException, KeyboardInterrupt):
        return 130
    return 0
