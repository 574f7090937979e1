"""One optimizer step: its networks, compiled or not, its results, and its timing."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mlbench.engine import optim
from mlbench.engine.batch_parts import Part, batch_statistics_frozen, restored
from mlbench.engine.distributed import World
from mlbench.engine.model import MultiLabelModel, ProbeNetwork, matrix_precision
from mlbench.engine.resume import TrainingState, random_states, set_random_states
from mlbench.text import count
from mlbench.types import DivergedError, HeadOutput, SuiteError

if TYPE_CHECKING:
    from mlbench.engine.train import Training

CHECK_EVERY = 10
"""Steps between two checks of the loss, which wait for the device."""

Network = Callable[..., HeadOutput]


# --------------------------------------------------------------------------------------- networks
def make_network(model: MultiLabelModel, training: Training) -> Network:
    """The model or its head, compiled if the settings say so; under DDP in several processes."""
    network: nn.Module = ProbeNetwork(model) if training.probe else model
    if how := training.settings.compile:
        mode = "reduce-overhead" if how == "graphs" else None
        network = cast(nn.Module, torch.compile(network, mode=mode))
    if training.world.size > 1:
        devices = [training.device] if training.device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=devices)
    return network


def compile_now(network: Network, model: MultiLabelModel, part: Part, training: Training) -> str:
    """Compile a network of ``make_network``; return a note with compile time and speed-up.

    Weights, statistics and random states do not change.

    Raises:
        SuiteError: torch cannot compile it.
    """
    device, alone = training.device, replace(part, last=False)

    def milliseconds(one: Network) -> float:
        model.zero_grad()  # a CUDA graph gives gradients that the next one may not add to
        _synchronize(device)
        began = time.perf_counter()
        with alone.accumulating([one]), matrix_precision(training.precision):
            output = alone.forward(one)
            torch.stack([output.logits.float().sum(), *output.aux.values()]).sum().backward()
        _synchronize(device)
        return 1000 * (time.perf_counter() - began)

    random, plain = random_states(device), ProbeNetwork(model) if training.probe else model
    with restored(list(model.buffers())):
        try:
            first = sum(milliseconds(network) for _ in range(3))  # the second records a CUDA graph
        except torch._dynamo.exc.TorchDynamoException as error:
            raise SuiteError(
                f"torch.compile failed for {training.settings.head}: {str(error).splitlines()[0]}; "
                "use --set compile=false"
            ) from error
        times = [(milliseconds(network), milliseconds(plain)) for _ in range(5)]
    fast, slow = (statistics.median(some) for some in zip(*times, strict=True))
    set_random_states(random, device)
    model.zero_grad()
    return (
        f"compile={training.settings.compile}: forward and backward of a step's "
        f"{count(len(part.batch.targets), 'image')} take {fast:.2f} ms instead of {slow:.2f}, "
        f"after {max(first - 3 * fast, 0) / 1000:.1f} s of compilation"
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------------------------------------- steps
def take_step(
    networks: Sequence[Network], state: TrainingState, parts: Sequence[Part], training: Training
) -> tuple[Tensor, Mapping[str, Tensor], Tensor]:
    """Take one optimizer step of every learner; return loss, named losses and norm of the first.

    In both passes of SAM, a learner sees the logits that its peer had before any update.
    """
    settings, clock = training.settings, training.clock
    seen: list[list[Tensor]] = []
    found: list[tuple[Tensor, Mapping[str, Tensor]]] = []
    for part in parts:
        with part.accumulating(networks):
            outputs = [part.forward(network) for network in networks]
            clock.lap("forward")
            logits = [output.logits.detach() for output in outputs]
            losses = [
                part.backward(one, outputs[i], logits[:i] + logits[i + 1 :])
                for i, one in enumerate(state.learners)
            ]
        seen.append(logits)
        found.append(losses[0])
    norms = []
    for i, (one, network) in enumerate(zip(state.learners, networks, strict=True)):
        if settings.sam_rho and not one.overflowed():
            with (
                optim.sam_perturbation(one.parameters, settings.sam_rho, settings.sam_adaptive),
                batch_statistics_frozen(one.model, settings.sam_bn == "first"),
            ):
                clock.lap("optimizer")
                for part, logits in zip(parts, seen, strict=True):
                    with part.accumulating([network]):
                        output = part.forward(network)
                        clock.lap("forward")
                        part.backward(one, output, logits[:i] + logits[i + 1 :])
        optim.set_learning_rate(one.optimizer, settings, state.step, training.epoch_steps)
        norms.append(one.update(settings.grad_clip))
        clock.lap("optimizer")
    state.step += 1
    extra = {name: sum(values[name] for _, values in found) for name in found[0][1]}
    return sum(loss for loss, _ in found), extra, norms[0]  # type: ignore[return-value]


class StepLog:
    """Losses and gradient norms of an epoch's steps; they stay on the device until ``check``."""

    def __init__(self, state: TrainingState, world: World) -> None:
        self.state, self.world = state, world
        self.pending: list[Tensor] = []
        self.norms: list[Tensor] = []

    def add(self, loss: Tensor, extra: Mapping[str, Tensor], norm: Tensor) -> None:
        """Add a step: this process's loss, the named losses in it, and the gradient norm."""
        self.pending.append(loss.float())
        self.norms.append(norm)
        for name, value in extra.items():
            self.state.extra.setdefault(name, []).append(value.float())

    def check(self, requests: list[float]) -> list[float]:
        """Move the pending losses to the state; return the mean of all processes' ``requests``.

        Raises:
            DivergedError: on every process, the first loss that is not finite.
        """
        losses, number = self.state.losses, len(self.pending)
        values = torch.stack([*self.pending, *self.pending[0].new_tensor(requests)])
        fetched = torch.cat([torch.stack(self.norms), self.world.mean(values)]).tolist()
        norms, found = fetched[:number], fetched[number:]
        # Steps whose gradient overflowed are skipped by the scaler; their norm means nothing.
        self.state.largest_norm = max([self.state.largest_norm, *filter(math.isfinite, norms)])
        self.pending, self.norms = [], []
        for value in found[:number]:
            losses.append(value)
            if not math.isfinite(value):
                raise DivergedError(len(losses), value)
        return found[number:]

    def means(self) -> dict[str, float]:
        """The mean of every named loss over steps and processes."""
        if not self.state.extra:
            return {}
        names = sorted(self.state.extra)  # the same order on every process
        means = torch.stack([torch.stack(self.state.extra[name]).mean() for name in names])
        return dict(zip(names, self.world.mean(means).tolist(), strict=True))


# -------------------------------------------------------------------------------------------- time
PARTS = ("loader wait", "copy", "forward", "loss", "backward", "optimizer", "rest")
"""Parts of a step in order; ``copy`` includes mixing; ``rest`` is checks, progress, saving."""


@dataclass
class Clock:
    """Measures the parts of each step; on CUDA each waits for the device, which slows the run."""

    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant
    runs: bool = False
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _last: float = 0.0

    def start(self) -> None:
        """Begin a step; the time since the previous step is not counted."""
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """End a part of a step; ``rest`` is the last."""
        if self.runs:
            _synchronize(self.device)
            now = time.perf_counter()
            self.seconds[part] += now - self._last
            self._last = now
            self.steps += part == "rest"

    def profile(self) -> dict[str, Any]:
        """Milliseconds per step and share of the time, for each part."""
        whole = sum(self.seconds.values())
        return {
            "steps": self.steps,
            "ms_per_step": round(1000 * whole / self.steps, 4),
            "parts": {
                part: {"ms": round(1000 * s / self.steps, 4), "share": round(s / whole, 4)}
                for part, s in self.seconds.items()
            },
        }
