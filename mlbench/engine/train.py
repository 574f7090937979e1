"""Training of one model, or of two by mutual learning, in plain PyTorch."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from mlbench.data.loader import (
    Batch,
    Mixed,
    Positions,
    Source,
    batches,
    draw_known,
    micro_batches,
    training_order,
)
from mlbench.data.mixing import Mix, draw_mixes
from mlbench.engine import optim
from mlbench.engine.batch_parts import Part, synchronize
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import Evaluator, select_best, to_device
from mlbench.engine.model import MultiLabelModel, matrix_precision
from mlbench.engine.resume import Keeper, TrainingState
from mlbench.engine.signals import STOP
from mlbench.engine.step import (
    CHECK_EVERY,
    Clock,
    Network,
    StepLog,
    compile_now,
    make_network,
    take_step,
)
from mlbench.types import (
    EpochLog,
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

T = TypeVar("T")


@dataclass(frozen=True)
class Training:
    """The data, settings and processes of a training run.

    Attributes:
        probe: ``source`` yields feature maps, and only the head is run.
        evaluator: of the split that selects the epoch to score; None takes the last epoch.
        keeper: saves the state now and then.
        recompute: activations are computed again in the backward pass.
        clock: measures the parts of each step.
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
    clock: Clock = field(default_factory=Clock)

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps per epoch."""
        return max(len(self.index) // self.settings.batch_size, 1)

    def start(self, *models: MultiLabelModel) -> TrainingState:
        """The state before the first step, or the newest saved one.

        ``models`` are the run's model and, under mutual learning, its peer.
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


def most_parts(settings: Settings, images: int, processes: int) -> int:
    """The largest number of micro-batches that have an image for each process."""
    return min(settings.batch_size, images) // processes


def check_processes(settings: Settings, images: int, world: World) -> None:
    """Refuse settings or data that leave a process without images.

    Raises:
        SuiteError: a global batch, or a micro-batch, has fewer images than there are processes.
    """
    if (batch := min(settings.batch_size, images)) < world.size:
        raise SuiteError(
            f"a batch of {batch} of {images} training images is too small to share between "
            f"{world.size} processes; give at most --processes {batch}"
        )
    most = most_parts(settings, images, world.size)
    if settings.grad_accumulation > most:
        raise SuiteError(
            f"grad_accumulation {settings.grad_accumulation} is more than the {most} images that "
            f"a process has of a batch; give at most --set grad_accumulation={most}"
        )


@dataclass(frozen=True)
class Wanted:
    """The batches that a run requests when an epoch begins; none when its training is over."""

    training: Training
    epoch: int
    order: Sequence[Positions] = ()

    @property
    def key(self) -> object:
        """Equal for equal batches, among runs of one team (``executors.side_by_side``)."""
        reads = getattr(self.training.source, "levels", None)
        return self.epoch, reads, b"".join(one.tobytes() for one in self.order)

    def batches(self) -> Iterator[Batch]:
        """These batches, on the device."""
        one = self.training
        return batches(one.source, one.index, self.order, self.epoch, device=one.device)


Steps = Generator[Wanted | None, Iterator[Batch] | None, T]
"""A run as a generator: it yields at each epoch, for the batches, and after each step.

The caller must leave the random states unchanged before it resumes the run.
"""


def finish(steps: Steps[T]) -> T:
    """Carry out a run alone, from its generator."""
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(None if wanted is None else wanted.batches())
    except StopIteration as end:
        result: T = end.value
        return result


def train(state: TrainingState, training: Training) -> Steps[None]:
    """Train a state of ``training.start`` through its remaining epochs.

    If an epoch is selected, the model to score ends with the weights of the best one.

    Raises:
        DivergedError: on every process, when the loss is not finite on any.
        Interrupted: on every process, when any was asked to stop; the state is saved.
    """
    networks = [make_network(one.model, training) for one in state.learners]
    with STOP.waits():
        while state.epoch < training.settings.epochs:
            yield from _epoch(networks, state, training)
            if training.evaluator is not None:
                model = state.evaluated()
                found, state.best = select_best(state.best, state.epoch, model, training.evaluator)
                state.log[-1] = state.log[-1].model_copy(update={"mAP": found})
            training.progress.epoch(state.log[-1])
            log.info("%s", state.log[-1].model_dump_json())
            requests = torch.tensor(training.keeper.requests(epoch_ended=True))
            training.keeper.handle(state, training.world.mean(requests).tolist())
        yield from _halt(state, Wanted(training, state.epoch))
    if state.best is not None:
        state.evaluated().load_state_dict(state.best.weights)


def _halt(state: TrainingState, wanted: Wanted | None = None) -> Steps[Iterator[Batch]]:
    """Yield to the other runs of this process; exclude their time."""
    began = time.perf_counter()
    found = yield wanted
    state.away += time.perf_counter() - began
    return found or iter(())


def _epoch(networks: Sequence[Network], state: TrainingState, training: Training) -> Steps[None]:
    """Train the rest of an epoch, which another process may have begun."""
    settings, clock = training.settings, training.clock
    for one in state.learners:
        optim.set_training_mode(one.model, settings)
    number, images = training.epoch_steps, min(settings.batch_size, len(training.index))
    first = state.epoch * number
    done = state.step - first
    began = time.perf_counter() - state.seconds - state.away
    steps = StepLog(state, training.world)
    optimizer = state.learners[0].optimizer
    rate = optim.set_learning_rate(optimizer, settings, first, number)
    shares = _shares(training, state.epoch)[done:]
    wanted = Wanted(training, state.epoch, [share.wanted for share in shares])
    feed = yield from _halt(state, wanted)
    clock.start()
    for i, (batch, share) in enumerate(zip(feed, shares, strict=True), done + 1):
        clock.lap("loader wait")
        parts = share.parts(batch, state, training)
        clock.lap("copy")
        if settings.compile and not training.keeper.compiled:
            for network, one in zip(networks, state.learners, strict=True):
                note = compile_now(network, one.model, parts[0], training)
                training.keeper.compiled.append(note)
            clock.start()
        with matrix_precision(training.precision):
            steps.add(*take_step(networks, state, parts, training))
        _look_after(steps, state, training, i, began)
        clock.lap("rest")
        yield from _halt(state)
        clock.start()
    losses = state.losses[first:]
    entry = EpochLog(
        epoch=state.epoch + 1,
        loss=sum(losses) / len(losses),
        aux=steps.means(),
        grad_norm=state.largest_norm,
        lr=rate,
        seconds=state.seconds,
        images_per_second=number * images / state.seconds,
    )
    state.log.append(entry)
    state.extra, state.largest_norm, state.seconds = {}, 0.0, 0.0
    state.epoch += 1


def _look_after(
    steps: StepLog, state: TrainingState, training: Training, i: int, began: float
) -> None:
    """Report step ``i`` of an epoch; check the loss and save the state when due."""
    progress, keeper, number = training.progress, training.keeper, training.epoch_steps
    images = i * min(training.settings.batch_size, len(training.index))
    speed = images / (time.perf_counter() - state.away - began)
    stops = training.world.size == 1 and STOP.asked  # several processes agree at the next check
    if len(steps.pending) >= CHECK_EVERY or i == number or stops:
        requests = steps.check(keeper.requests())
        state.seconds = time.perf_counter() - state.away - began
        progress.step(state.epoch, i, number, state.losses[-1], speed)
        keeper.handle(state, requests)
    elif state.losses:
        progress.step(state.epoch, i, number, state.losses[-1], speed)
    else:
        progress.count(i, number)


class _Share(NamedTuple):
    """This process's share of a global batch.

    Attributes:
        step: number of the batch in the epoch, from 0.
        mix: how the batch is mixed; None if it is not.
        total: rows of the global batch, of plain or mixed images.
        rows: positions in the global batch of this process's rows.
        sizes: number of rows of each micro-batch.
        wanted: the images that the rows are made of.
    """

    step: int
    mix: Mix | None
    total: int
    rows: Positions
    sizes: list[int]
    wanted: Positions

    def parts(self, batch: Batch, state: TrainingState, training: Training) -> list[Part]:
        """Mix the wanted images into rows and divide these into micro-batches."""
        model, device = state.learners[0].model, training.device
        inputs = to_device(batch.inputs, device)
        mixed = Mixed(inputs, batch.targets.to(device, non_blocking=True))
        if self.mix is not None and isinstance(inputs, Tensor):
            mixed = self.mix.apply(inputs, mixed.targets, self.rows, model.get_buffer("mean"))
        if most_known := getattr(model.head, "most_known", 0):
            rng = stream("known labels", training.seed, state.epoch, self.step)
            known = draw_known(self.total, mixed.targets.shape[1], most_known, rng)[self.rows]
            mixed = mixed.telling(torch.from_numpy(known).to(device, non_blocking=True))
        context = LossContext(state.epoch + 1, training.settings.epochs)
        ends = accumulate(self.sizes)
        spans = [slice(end - size, end) for size, end in zip(self.sizes, ends, strict=True)]
        return [
            Part(training, context, mixed.at(span), self.total, span is spans[0], span is spans[-1])
            for span in spans
        ]


def _shares(training: Training, epoch: int) -> list[_Share]:
    """This process's share of each global batch of an epoch."""
    settings, world, seed = training.settings, training.world, training.seed
    order = training_order(len(training.index), settings.batch_size, seed, epoch)
    mixes: list[Mix | None] = [None] * len(order)
    if settings.mixing:
        mixes = draw_mixes(settings.mixing, [*map(len, order)], seed, epoch)
    shares = []
    for step, (images, mix) in enumerate(zip(order, mixes, strict=True)):
        total = mix.rows if mix else len(images)
        parts = micro_batches(total, settings.grad_accumulation, world.rank, world.size)
        rows = np.concatenate(parts)
        wanted = images[mix.needs(rows) if mix else rows]
        shares.append(_Share(step, mix, total, rows, [*map(len, parts)], wanted))
    return shares
