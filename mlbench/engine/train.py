"""Training of one model, in plain PyTorch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlbench.data.loader import Batch, Inputs, Source, batches, shard, training_order
from mlbench.engine import optimise
from mlbench.engine.distributed import World
from mlbench.engine.evaluate import to_device
from mlbench.engine.model import MultiLabelModel
from mlbench.engine.precision import autocast
from mlbench.types import (
    DataError,
    DivergedError,
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


class ProbeNetwork(nn.Module):
    """The trained part of a model whose feature maps were made before: its head."""

    def __init__(self, model: MultiLabelModel) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """Feature maps -> logits."""
        return self.head(features)


@dataclass
class TrainingState:
    """All that changes while a run trains; what a checkpoint of the run would hold."""

    model: MultiLabelModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    log: list[EpochLog] = field(default_factory=list)

    def evaluated(self) -> MultiLabelModel:
        """The model that is scored: the moving average where there is one."""
        model = self.model if self.average is None else self.average.module
        assert isinstance(model, MultiLabelModel)
        return model.eval()

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on from here."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "losses": list(self.losses),
            "log": [entry.model_dump() for entry in self.log],
        }


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

    @property
    def epoch_steps(self) -> int:
        """Optimiser steps in an epoch."""
        return max(len(self.index) // self.settings.batch_size, 1)

    def start(self, model: MultiLabelModel) -> TrainingState:
        """The state before the first step."""
        settings, world = self.settings, self.world
        if settings.sync_bn and world.size > 1:
            # timm's knows its batch norms that hold an activation; torch's would drop it.
            model = convert_sync_batchnorm(model)
        optimise.freeze(model, settings)
        made = optimise.optimizer(model, settings)
        average = None
        if settings.ema_decay:
            average = AveragedModel(
                model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True
            )
        return TrainingState(
            model=model,
            optimizer=made,
            scaler=torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16"),
            average=average,
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

    Raises:
        DivergedError: on every process, when the loss stops being finite on any.
    """
    network: Callable[[Inputs], HeadOutput] = (
        ProbeNetwork(state.model) if training.probe else state.model
    )
    if training.world.size > 1:
        devices = [training.device] if training.device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=devices)
    while state.epoch < training.settings.epochs:
        _epoch(network, state, training)
        state.epoch += 1
        training.progress.epoch(state.log[-1])
        log.info("%s", state.log[-1].model_dump_json())


def _epoch(
    network: Callable[[Inputs], HeadOutput], state: TrainingState, training: Training
) -> None:
    settings, world = training.settings, training.world
    optimise.training_mode(state.model, settings)
    order = training_order(len(training.index), settings.batch_size, training.seed, state.epoch)
    mine = [shard(positions, world.rank, world.size) for positions in order]
    started, seen, first = time.perf_counter(), 0, len(state.losses)
    watch = _Watch(state, world)
    rate = optimise.set_learning_rate(state.optimizer, settings, state.step, training.epoch_steps)
    for i, batch in enumerate(batches(training.source, training.index, mine, state.epoch)):
        share = len(batch.targets) / len(order[i])
        watch.note(*_step(network, state, batch, training, share))
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
            aux=watch.aux(),
            grad_norm=watch.largest_norm,
            lr=rate,
            seconds=seconds,
            images_per_second=seen / seconds,
        )
    )


def _step(
    network: Callable[[Inputs], HeadOutput],
    state: TrainingState,
    batch: Batch,
    training: Training,
    share: float,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """One optimiser step: the loss (its mean over processes is the global batch's), extra losses,
    the gradient's norm.

    DDP averages gradients over processes with equal weight. ``share`` is this process's part of
    the global batch; weighting by it makes the whole exact for parts of any size, and a loss that
    adds up over images is weighted so that the average adds up too.
    """  # noqa: D205
    processes = training.world.size
    adds_up = getattr(training.loss, "reduction", "mean") == "sum"
    targets = batch.targets.to(training.device, non_blocking=True)
    with autocast(training.device, training.precision):
        output = network(to_device(batch.inputs, training.device))
        loss = training.loss(output.logits, targets) * (processes if adds_up else share * processes)
        for value in output.aux.values():
            loss = loss + value * (share * processes)
    optimise.set_learning_rate(state.optimizer, training.settings, state.step, training.epoch_steps)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimizer)
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, training.settings.grad_clip or float("inf"))
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    if state.average is not None:
        state.average.update_parameters(state.model)
    return loss.detach(), {k: v.detach() for k, v in output.aux.items()}, norm


class _Watch:
    """Losses and norms of the steps since the last look, left on the device until then."""

    def __init__(self, state: TrainingState, world: World) -> None:
        self.state, self.world = state, world
        self.pending: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.extra: dict[str, list[Tensor]] = {}
        self.largest_norm = 0.0

    def note(self, loss: Tensor, aux: dict[str, Tensor], norm: Tensor) -> None:
        self.pending.append(loss.float())
        self.norms.append(norm)
        for name, value in aux.items():
            self.extra.setdefault(name, []).append(value.float())

    def look(self) -> None:
        """Bring the losses over; stop on every process at the first that is not finite."""
        before = len(self.state.losses)
        losses = self.world.mean(torch.stack(self.pending)).tolist()
        norms = torch.stack(self.norms)
        # The scaler skips steps whose gradients overflow; their norm says nothing.
        self.largest_norm = max(self.largest_norm, *norms[norms.isfinite()].tolist(), 0.0)
        self.pending, self.norms = [], []
        self.state.losses.extend(losses)
        for i, value in enumerate(losses):
            if not torch.isfinite(torch.tensor(value)):
                raise DivergedError(before + i + 1, value)

    def aux(self) -> dict[str, float]:
        return {name: torch.stack(values).mean().item() for name, values in self.extra.items()}
