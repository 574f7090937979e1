"""Training of one model, or of two that learn from each other, in plain PyTorch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mlbench.data.loader import Batch, Inputs, Source, batches, shard, training_order
from mlbench.engine import learner, mutual, optimise, sam
from mlbench.engine.distributed import World
from mlbench.engine.evaluate import to_device
from mlbench.engine.learner import Learner
from mlbench.engine.model import MultiLabelModel, ProbeNetwork
from mlbench.engine.precision import autocast
from mlbench.engine.selection import Best, Evaluator, better
from mlbench.engine.watch import Watch
from mlbench.types import (
    DataError,
    EpochLog,
    HeadOutput,
    Index,
    Loss,
    Precision,
    Progress,
    Settings,
    SuiteError,
)

log = logging.getLogger(__name__)

CHECK_EVERY = 10
"""Steps between two looks at the loss, which wait for the device."""

Network = Callable[[Inputs], HeadOutput]
Found = tuple[Tensor, Mapping[str, Tensor], Tensor]
"""Of one step: the loss, the extra losses in it, the gradient's norm."""


@dataclass
class TrainingState:
    """All that changes while a run trains.

    Attributes:
        learners: the models in training; the first is the run's, the others are its peers.
        best: the best epoch so far, where one is chosen.
    """

    learners: tuple[Learner, ...]
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    log: list[EpochLog] = field(default_factory=list)
    best: Best | None = None

    def evaluated(self) -> MultiLabelModel:
        """The model that is scored: the first, or its moving average where there is one."""
        first = self.learners[0]
        model = first.model if first.average is None else first.average.module
        assert isinstance(model, MultiLabelModel)
        return model.eval()


@dataclass(frozen=True)
class Training:
    """What a training run is given: data, settings, place."""

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
    """The source yields feature maps, and only the head is run."""
    evaluator: Evaluator | None = None
    """What the epoch to score is chosen on; None takes the last."""

    @property
    def epoch_steps(self) -> int:
        """Optimiser steps in an epoch."""
        return max(len(self.index) // self.settings.batch_size, 1)

    def start(self, *models: MultiLabelModel) -> TrainingState:
        """The state before the first step.

        Args:
            models: the model of the run, and its peers under mutual learning.
        """
        settings = self.settings
        wanted = 2 if settings.mutual_weight else 1
        assert len(models) == wanted, f"{len(models)} models for settings of {wanted}"
        if settings.sync_bn and self.world.size > 1:
            # timm's knows its batch norms that hold an activation; torch's would drop it.
            models = tuple(convert_sync_batchnorm(model) for model in models)
        scaled = self.precision == "fp16"
        return TrainingState(
            tuple(
                learner.make(model, settings, scaled=scaled, averaged=i == 0)
                for i, model in enumerate(models)
            )
        )


def check_processes(settings: Settings, images: int, world: World, device: torch.device) -> None:
    """Refuse what several processes cannot share, before anything is done.

    Raises:
        SuiteError, DataError: settings or data do not suit the number of processes.
    """
    if settings.batch_size % world.size:
        raise SuiteError(
            f"batch_size {settings.batch_size} is the global one and cannot be shared by "
            f"{world.size} processes; give a multiple of {world.size}"
        )
    if images < world.size:
        raise DataError(f"a split of {images} images is too small for {world.size} processes")
    if settings.sync_bn and world.size > 1 and device.type != "cuda":
        raise SuiteError(
            "sync_bn needs CUDA devices; on the CPU use one process, or freeze_bn: true"
        )


def train(state: TrainingState, training: Training) -> None:
    """Take a state from ``training.start`` through the epochs that its settings have left.

    Where an epoch is chosen, the model that is scored ends with the weights of the best one.

    Raises:
        DivergedError: on every process, when the loss stops being finite on any.
    """
    networks = [_network(one.model, training) for one in state.learners]
    while state.epoch < training.settings.epochs:
        _epoch(networks, state, training)
        state.epoch += 1
        if training.evaluator is not None:
            found, state.best = better(
                state.best, state.epoch, state.evaluated(), training.evaluator
            )
            state.log[-1] = state.log[-1].model_copy(update={"mAP": found})
        training.progress.epoch(state.log[-1])
        log.info("%s", state.log[-1].model_dump_json())
    if state.best is not None:
        state.evaluated().load_state_dict(state.best.weights)


def _network(model: MultiLabelModel, training: Training) -> Network:
    """What is run on a batch: the model or its head, as one with those of other processes."""
    network: nn.Module = ProbeNetwork(model) if training.probe else model
    if training.world.size > 1:
        devices = [training.device] if training.device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=devices)
    return network


def _epoch(networks: Sequence[Network], state: TrainingState, training: Training) -> None:
    settings, world = training.settings, training.world
    for one in state.learners:
        optimise.training_mode(one.model, settings)
    order = training_order(len(training.index), settings.batch_size, training.seed, state.epoch)
    mine = [shard(positions, world.rank, world.size) for positions in order]
    started, seen, first = time.perf_counter(), 0, len(state.losses)
    watch = Watch(state.losses, world)
    made = state.learners[0].optimizer
    rate = optimise.set_learning_rate(made, settings, state.step, training.epoch_steps)
    for i, batch in enumerate(batches(training.source, training.index, mine, state.epoch)):
        share = len(batch.targets) / len(order[i])
        watch.note(*_step(networks, state, batch, training, share))
        seen += len(order[i])
        if len(watch.pending) >= CHECK_EVERY or i + 1 == len(order):
            watch.look()
            speed = seen / (time.perf_counter() - started)
            training.progress.step(state.epoch, i + 1, len(order), state.losses[-1], speed)
    seconds = time.perf_counter() - started
    losses = state.losses[first:]
    state.log.append(
        EpochLog(
            epoch=state.epoch + 1,
            loss=sum(losses) / len(losses),
            aux=watch.means(),
            grad_norm=watch.largest_norm,
            lr=rate,
            seconds=seconds,
            images_per_second=seen / seconds,
        )
    )


def _step(
    networks: Sequence[Network],
    state: TrainingState,
    batch: Batch,
    training: Training,
    share: float,
) -> Found:
    """One optimiser step of every learner, and what the first one found.

    Its peers are to a learner what they said before any of them moved, in both passes of SAM.
    """
    settings = training.settings
    inputs = to_device(batch.inputs, training.device)
    targets = batch.targets.to(training.device, non_blocking=True)

    def forward(network: Network) -> HeadOutput:
        with autocast(training.device, training.precision):
            return network(inputs)

    outputs = [forward(network) for network in networks]
    logits = [output.logits.detach() for output in outputs]
    found: list[Found] = []
    for i, (one, network) in enumerate(zip(state.learners, networks, strict=True)):
        objective = _Objective(training, targets, share, peers=logits[:i] + logits[i + 1 :])
        loss, extra = objective(outputs[i])
        one.backward(loss)
        if settings.sam_rho and not one.overflowed():
            with (
                sam.ascended(one.parameters, settings.sam_rho, settings.sam_adaptive),
                sam.statistics_kept(one.model, settings.sam_bn == "first"),
            ):
                second, _ = objective(forward(network))
                one.backward(second)
        optimise.set_learning_rate(one.optimizer, settings, state.step, training.epoch_steps)
        found.append((loss, extra, one.update(settings.grad_clip)))
    state.step += 1
    return found[0]


@dataclass(frozen=True)
class _Objective:
    """What a learner minimises on this process's part of a batch.

    DDP averages gradients over processes with equal weight. ``share`` is this process's part of
    the global batch; weighting by it makes the whole exact for parts of any size, and a loss that
    adds up over images is weighted so that the average adds up too.
    """

    training: Training
    targets: Tensor
    share: float
    peers: Sequence[Tensor]

    def __call__(self, output: HeadOutput) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss and the extra losses in it; means over processes are the global batch's."""
        training, processes = self.training, self.training.world.size
        adds_up, part = getattr(training.loss, "reduction", "mean") == "sum", self.share * processes
        extra = {name: value * part for name, value in output.aux.items()}
        with autocast(training.device, training.precision):
            if self.peers:
                apart = mutual.divergence(output.logits, self.peers)
                extra["mutual"] = training.settings.mutual_weight * apart * part
            loss = training.loss(output.logits, self.targets) * (processes if adds_up else part)
            for value in extra.values():
                loss = loss + value
        return loss, extra
