"""Training of one model, or of two by mutual learning, in plain PyTorch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mlbench.data.loader import (
    Mixed,
    Source,
    batches,
    draw_known,
    micro_batches,
    training_order,
)
from mlbench.data.mixing import Mix, draw_mixes
from mlbench.engine import optim
from mlbench.engine.batch_parts import Part, batch_statistics_frozen, synchronize
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import Evaluator, select_best, to_device
from mlbench.engine.model import MultiLabelModel, ProbeNetwork, matrix_precision
from mlbench.engine.resume import STOP, Keeper, TrainingState
from mlbench.types import (
    DataError,
    DivergedError,
    EpochLog,
    HeadOutput,
    Index,
    Loss,
    LossContext,
    Precision,
    Progress,
    Settings,
    SuiteError,
    stream,
)

log = logging.getLogger(__name__)

CHECK_EVERY = 10
"""Steps between two checks of the loss, which wait for the device."""

Network = Callable[..., HeadOutput]
StepResult = tuple[Tensor, Mapping[str, Tensor], Tensor]
"""The loss of a step, the named losses in it, and the gradient norm."""


@dataclass(frozen=True)
class Training:
    """The data, settings and processes of a training run.

    Attributes:
        probe: ``source`` yields feature maps, and only the head is run.
        evaluator: of the split that selects the epoch to score; None takes the last epoch.
        keeper: saves the state now and then.
        recompute: activations are computed again in the backward pass.
    """

    settings: Settings
    index: Index
    source: Source
    loss: Loss
    seed: int
    precision: Precision
    device: torch.device
    world: World
    progress: Progress
    probe: bool = False
    evaluator: Evaluator | None = None
    keeper: Keeper = field(default_factory=Keeper)
    recompute: bool = False

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps per epoch."""
        return max(len(self.index) // self.settings.batch_size, 1)

    def start(self, *models: MultiLabelModel) -> TrainingState:
        """The state before the first step, or the newest saved one.

        Args:
            models: the model of the run, and its peer under mutual learning.
        """
        settings = self.settings
        if settings.sync_bn and (self.world.size > 1 or self.device.type == "cpu"):
            for model in models:
                synchronize(model, self.device)
        scaled = self.precision == "fp16"
        state = TrainingState(
            tuple(
                optim.make_learner(model, settings, scaled=scaled, averaged=i == 0)
                for i, model in enumerate(models)
            ),
            self.loss,
        )
        self.keeper.resume(state, None if self.evaluator is None else self.evaluator.index)
        return state


def check_processes(settings: Settings, images: int, world: World) -> None:
    """Refuse settings or data of which a process would get nothing.

    Raises:
        SuiteError: the batch size is less than the number of processes.
        DataError: the training split has fewer images than there are processes.
    """
    if settings.batch_size < world.size:
        raise SuiteError(
            f"batch_size {settings.batch_size} is the global one, too small to share between "
            f"{world.size} processes; give at most --processes {settings.batch_size}"
        )
    least = min(settings.batch_size, images) // world.size
    if settings.grad_accumulation > max(least, 1):
        raise SuiteError(
            f"grad_accumulation {settings.grad_accumulation} is more than the {least} images that "
            f"a process has of a batch; give at most --set grad_accumulation={least}"
        )
    if images < world.size:
        raise DataError(
            f"{images} training images are too few for {world.size} processes; give at most "
            f"--processes {images}"
        )


def train(state: TrainingState, training: Training) -> None:
    """Train a state of ``training.start`` through its remaining epochs.

    If an epoch is selected, the model to score ends with the weights of the best one.

    Raises:
        DivergedError: on every process, when the loss is not finite on any.
        Interrupted: on every process, when any was asked to stop; the state is saved.
    """
    networks = [_network(one.model, training) for one in state.learners]
    with STOP.waits():
        while state.epoch < training.settings.epochs:
            _epoch(networks, state, training)
            if training.evaluator is not None:
                model = state.evaluated()
                found, state.best = select_best(state.best, state.epoch, model, training.evaluator)
                state.log[-1] = state.log[-1].model_copy(update={"mAP": found})
            training.progress.epoch(state.log[-1])
            log.info("%s", state.log[-1].model_dump_json())
            training.keeper.end_epoch(state)
    if state.best is not None:
        state.evaluated().load_state_dict(state.best.weights)


def _network(model: MultiLabelModel, training: Training) -> Network:
    """The model or its head, synchronized with those of other processes."""
    network: nn.Module = ProbeNetwork(model) if training.probe else model
    if training.world.size > 1:
        devices = [training.device] if training.device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=devices)
    return network


def _epoch(networks: Sequence[Network], state: TrainingState, training: Training) -> None:
    """What is left of an epoch, which may have begun in another process."""
    settings, keeper = training.settings, training.keeper
    for one in state.learners:
        optim.set_training_mode(one.model, settings)
    number, images = training.epoch_steps, min(settings.batch_size, len(training.index))
    first = state.epoch * number
    done = state.step - first
    started = time.perf_counter() - state.seconds
    steps = _StepLog(state, training.world)
    optimizer = state.learners[0].optimizer
    rate = optim.set_learning_rate(optimizer, settings, first, number)
    for i, parts in enumerate(_batches(training, state, done), done + 1):
        with matrix_precision(training.precision):
            steps.add(*_step(networks, state, parts, training))
        speed = i * images / (time.perf_counter() - started)
        if len(steps.pending) >= CHECK_EVERY or i == number or keeper.hurries:
            wishes = steps.check(keeper.wishes())
            state.seconds = time.perf_counter() - started
            training.progress.step(state.epoch, i, number, state.losses[-1], speed)
            keeper.obey(state, wishes)
        elif state.losses:
            training.progress.step(state.epoch, i, number, state.losses[-1], speed)
        else:
            training.progress.count(i, number)
    losses = state.losses[first:]
    state.end_epoch(
        EpochLog(
            epoch=state.epoch + 1,
            loss=sum(losses) / len(losses),
            aux=steps.means(),
            grad_norm=state.largest_norm,
            lr=rate,
            seconds=state.seconds,
            images_per_second=number * images / state.seconds,
        )
    )


def _batches(training: Training, state: TrainingState, done: int) -> Iterator[list[Part]]:
    """This process's share of the global batches of an epoch, in parts, after those done."""
    settings, world, device = training.settings, training.world, training.device
    order = training_order(len(training.index), settings.batch_size, training.seed, state.epoch)
    mixes: list[Mix | None] = [None] * len(order)
    if settings.mixing:
        mixes = draw_mixes(settings.mixing, [*map(len, order)], training.seed, state.epoch)
    left = list(zip(order, mixes, strict=True))[done:]
    totals = [mix.rows if mix else len(one) for one, mix in left]
    shares = [
        micro_batches(np.arange(total), settings.grad_accumulation, world.rank, world.size)
        for total in totals
    ]
    rows = [np.concatenate(one) for one in shares]
    mine = [
        one[mix.needs(part) if mix else part] for (one, mix), part in zip(left, rows, strict=True)
    ]
    empty = state.learners[0].model.get_buffer("mean")
    most_known = getattr(state.learners[0].model.head, "most_known", 0)
    for i, batch in enumerate(
        batches(training.source, training.index, mine, state.epoch, device=device)
    ):
        inputs, mix = to_device(batch.inputs, device), left[i][1]
        mixed = Mixed(inputs, batch.targets.to(device, non_blocking=True))
        if mix is not None and isinstance(inputs, Tensor):
            mixed = mix.apply(inputs, mixed.targets, rows[i], empty)
        if most_known:
            rng = stream("known labels", training.seed, state.epoch, done + i)
            told = draw_known(totals[i], mixed.targets.shape[1], most_known, rng)[rows[i]]
            mixed = mixed.telling(torch.from_numpy(told).to(device, non_blocking=True))
        yield _parts(training, state.epoch, mixed, [*map(len, shares[i])], totals[i])


def _parts(
    training: Training, epoch: int, batch: Mixed, sizes: Sequence[int], total: int
) -> list[Part]:
    """This process's rows of a batch of ``total`` rows, as parts of these sizes."""
    context = LossContext(epoch + 1, training.settings.epochs)
    parts, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        place = {"first": start == 0, "last": rows.stop == len(batch.targets)}
        parts.append(Part(training, context, batch.at(rows), size / total, **place))
        start = rows.stop
    return parts


def _step(
    networks: Sequence[Network],
    state: TrainingState,
    parts: Sequence[Part],
    training: Training,
) -> StepResult:
    """One optimizer step of every learner; returns the result of the first.

    A learner sees its peer's logits from before any update, in both passes of SAM.
    """
    settings = training.settings
    seen: list[list[Tensor]] = []
    found: list[tuple[Tensor, Mapping[str, Tensor]]] = []
    for part in parts:
        with part.accumulating(networks):
            outputs = [part.forward(network) for network in networks]
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
                for part, logits in zip(parts, seen, strict=True):
                    with part.accumulating([network]):
                        part.backward(one, part.forward(network), logits[:i] + logits[i + 1 :])
        optim.set_learning_rate(one.optimizer, settings, state.step, training.epoch_steps)
        norms.append(one.update(settings.grad_clip))
    state.step += 1
    extra = {name: sum(values[name] for _, values in found) for name in found[0][1]}
    return sum(loss for loss, _ in found), extra, norms[0]  # type: ignore[return-value]


class _StepLog:
    """Losses and gradient norms of an epoch's steps; they stay on the device until ``check``.

    Args:
        state: ``check`` appends to its losses.
        world: the processes that share each loss.
    """

    def __init__(self, state: TrainingState, world: World) -> None:
        self.state, self.world = state, world
        self.pending: list[Tensor] = []
        self.norms: list[Tensor] = []

    def add(self, loss: Tensor, extra: Mapping[str, Tensor], norm: Tensor) -> None:
        """Add a step: its loss on this process, the named losses in it, and its gradient norm."""
        self.pending.append(loss.float())
        self.norms.append(norm)
        for name, value in extra.items():
            self.state.extra.setdefault(name, []).append(value.float())

    def check(self, wishes: list[float]) -> list[float]:
        """Fetch the pending losses, and what all processes together wish (``Keeper.wishes``).

        Raises:
            DivergedError: on every process, the first loss that is not finite.
        """
        losses, number = self.state.losses, len(self.pending)
        values = torch.stack([*self.pending, *self.pending[0].new_tensor(wishes)])
        found = self.world.mean(values).tolist()
        norms = torch.stack(self.norms)
        # Steps whose gradient overflowed are skipped by the scaler; their norm means nothing.
        largest = max(norms[norms.isfinite()].tolist(), default=0.0)
        self.state.largest_norm = max(self.state.largest_norm, largest)
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
