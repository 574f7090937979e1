"""The processes of a run: who we are, how results come together, how more of us are started.

A process learns its place from the variables that torch's elastic launcher sets, so that
``mlbench run --gpus 2 ...`` and ``torchrun --nproc-per-node 2 -m mlbench run ...`` are the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from mlbench.types import SuiteError

T = TypeVar("T")

PATIENCE = timedelta(hours=4)
"""How long processes wait for each other: the leader alone checks images and measures."""


@dataclass(frozen=True)
class World:
    """The processes that carry out one run together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """One value of each process, by rank, on all of them."""
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

    def ask_leader(self, question: Callable[[], T]) -> T:
        """What only the leader works out: its answer, or its error, on every process."""
        answer: T | None = None
        problem: Exception | None = None
        if self.leads:
            try:
                answer = question()
            except Exception as error:  # the others must hear of it, or they wait for ever
                problem = error
        answer, problem = self.broadcast((answer, problem))
        if problem is not None:
            raise problem
        return answer

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise mean over the processes; what is not finite anywhere stays so."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def agree(self, buffers: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with the leader's."""
        if self.size > 1:
            for buffer in buffers:
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def join(device: str) -> World:
    """Take our place among the processes of this launch, if there was one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    world = World(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    if device.startswith("cuda"):
        torch.cuda.set_device(world.local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    return world


def leave(code: int) -> NoReturn:
    """End this process of several with an exit code that all of them share.

    They wait for each other, as a launcher ends the rest when one has ended badly, and what the
    leader has to say must be out by then. The interpreter's own end is left out: a thread of gloo
    that lets go of a Python object during it aborts the process, whose signal would hide the code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if dist.is_initialized():
        dist.barrier()
    os._exit(code)


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(processes: int, argv: Sequence[str], device: str) -> int:
    """Run ``mlbench argv`` in that many processes on this machine; the leader's exit code.

    Raises:
        SuiteError: fewer GPUs than processes.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    if device.startswith("cuda") and processes > torch.cuda.device_count():
        raise SuiteError(
            f"--gpus {processes} but this machine shows {torch.cuda.device_count()} CUDA devices; "
            "ask for as many, or use --device cpu for processes on the CPU"
        )
    # Without this every process takes all cores and they fight; torchrun itself would take one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    arguments = ["--standalone", f"--nproc-per-node={processes}", "-m", "mlbench", *argv]
    try:
        run(parse_args(arguments))
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except (SignalException, KeyboardInterrupt):
        return 130
    return 0
