"""The processes of a run: ranks and exchange of values.

A process reads its rank from the variables that torch's elastic launcher sets.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from mlbench.types import Interrupted

T = TypeVar("T")

MARGIN = 30.0
"""Seconds that processes wait for each other beyond the stall limit of the run."""


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
        """Compute on the leader alone; every process returns its answer or raises its error.

        The other processes wait as long as the leader makes progress (see ``beat``).
        """
        answer: T | None = None
        problem: BaseException | None = None
        key = f"asked {next(_WAITS)}"
        if self.leads:
            try:
                answer = compute()
            except (Exception, Interrupted) as error:  # without it the others would wait forever
                problem = error
            if self.size > 1:
                _store().set(key, "answered")
        else:
            _wait_for(key)
        answer, problem = self.broadcast((answer, problem))
        if problem is not None:
            raise problem
        return answer

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
                whole = tensor.contiguous()  # NCCL refuses others, such as a transposed matrix
                dist.broadcast(whole, src=0)
                tensor.copy_(whole)

    def wait(self) -> None:
        """Wait until every process calls this, as long as any of them makes progress."""
        if self.size > 1:
            key = f"arrived {next(_WAITS)}"
            if _store().add(key, 1) == self.size:
                _store().set(f"{key}, all", "here")
            _wait_for(f"{key}, all")

    def beat(self) -> None:
        """Tell the other processes that this one makes progress."""
        if self.size > 1:
            _store().add(_BEATS, 1)


_BEATS = "beats"
_WAITS = itertools.count()
"""Numbers the waits of a process, in the same order on all."""


def _store() -> dist.distributed_c10d.Store:
    return dist.distributed_c10d._get_default_store()


def _wait_for(key: str) -> None:
    """Wait for a key of the store.

    Raises:
        TimeoutError: no process made progress for the timeout of the process group.
    """
    store, beats = _store(), -1
    while True:
        try:
            store.wait([key], store.timeout)  # type: ignore[attr-defined]
            return
        except RuntimeError as error:  # it timed out
            if (now := store.add(_BEATS, 0)) == beats:
                raise TimeoutError("the other processes of the run make no progress") from error
            beats = now


def join(device: str, stall: float) -> World:
    """Join the processes of this run; a run of one process gets a world of size 1.

    Args:
        device: the device of the run.
        stall: seconds without progress after which the executor ends the run. Processes wait
            ``MARGIN`` longer for each other, so that the executor can write all stacks first.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    world = World(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    backend = "gloo"
    if device.startswith("cuda"):
        torch.cuda.set_device(world.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend,
        init_method=os.environ.get("MLBENCH_RENDEZVOUS", "env://"),
        rank=world.rank,
        world_size=size,
        timeout=timedelta(seconds=stall + MARGIN),
    )
    _store().set_timeout(timedelta(seconds=stall + MARGIN))
    return world
