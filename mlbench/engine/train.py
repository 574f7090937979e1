"""Training of one model, or of two by mutual learning, in plain PyTorch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.parallel import DistributedDataParallel

from mlbench.data.loader import (
    Batch,
    Inputs,
    Source,
    batches,
    part_sizes,
    shard,
    training_order,
)
from mlbench.engine import optim
from mlbench.engine.batch_parts import gather_rows, synchronize
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import BestEpoch, Evaluator, select_best, to_device
from mlbench.engine.model import MultiLabelModel, ProbeNetwork, autocast, matrix_precision
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
    evaluate_loss,
)

log = logging.getLogger(__name__)

CHECK_EVERY = 10
"""Steps between two checks of the loss, which wait for the device."""

Network = Callable[[Inputs], HeadOutput]
StepResult = tuple[Tensor, Mapping[str, Tensor], Tensor]
"""The loss of a step, the named losses in it, and the gradient norm."""


@dataclass
class TrainingState:
    """All that changes while a run trains.

    Attributes:
        learners: the models in training; the first is the run's, the second its peer.
        best: the best epoch so far, if one is selected.
    """

    learners: tuple[optim.Learner, ...]
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    log: list[EpochLog] = field(default_factory=list)
    best: BestEpoch | None = None

    def evaluated(self) -> MultiLabelModel:
        """The model to score, in evaluation mode: the first, or its moving average if any."""
        first = self.learners[0]
        model = first.model if first.average is None else first.average.module
        assert isinstance(model, MultiLabelModel)
        return model.eval()


@dataclass(frozen=True)
class Training:
    """The data, settings and processes of a training run.

    Attributes:
        probe: ``source`` yields feature maps, and only the head is run.
        evaluator: of the split that selects the epoch to score; None takes the last epoch.
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

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps per epoch."""
        return max(len(self.index) // self.settings.batch_size, 1)

    def start(self, *models: MultiLabelModel) -> TrainingState:
        """The state before the first step.

        Args:
            models: the model of the run, and its peer under mutual learning.
        """
        settings = self.settings
        if settings.sync_bn and (self.world.size > 1 or self.device.type == "cpu"):
            for model in models:
                synchronize(model, self.device)
        scaled = self.precision == "fp16"
        return TrainingState(
            tuple(
                optim.make_learner(model, settings, scaled=scaled, averaged=i == 0)
                for i, model in enumerate(models)
            )
        )


def check_processes(settings: Settings, images: int, world: World) -> None:
    """Refuse settings or data of which a process would get nothing.

    Raises:
        SuiteError: the batch size is less than the number of processes.
        DataError: the training split has fewer images than there are processes.
    """
    if settings.batch_size < world.size:
        raise SuiteError(
            f"batch_size {settings.batch_size} is the global one, too small to share between "
            f"{world.size} processes; give at most --gpus {settings.batch_size}"
        )
    if images < world.size:
        raise DataError(
            f"{images} training images are too few for {world.size} processes; give at most "
            f"--gpus {images}"
        )


def train(state: TrainingState, training: Training) -> None:
    """Train a state of ``training.start`` through its remaining epochs.

    If an epoch is selected, the model to score ends with the weights of the best one.

    Raises:
        DivergedError: on every process, when the loss is not finite on any.
    """
    networks = [_network(one.model, training) for one in state.learners]
    while state.epoch < training.settings.epochs:
        _epoch(networks, state, training)
        state.epoch += 1
        if training.evaluator is not None:
            model = state.evaluated()
            found, state.best = select_best(state.best, state.epoch, model, training.evaluator)
            state.log[-1] = state.log[-1].model_copy(update={"mAP": found})
        training.progress.epoch(state.log[-1])
        log.info("%s", state.log[-1].model_dump_json())
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
    settings, world = training.settings, training.world
    for one in state.learners:
        optim.set_training_mode(one.model, settings)
    order = training_order(len(training.index), settings.batch_size, training.seed, state.epoch)
    mine = [shard(positions, world.rank, world.size) for positions in order]
    started, seen, first = time.perf_counter(), 0, len(state.losses)
    steps = _StepLog(state.losses, world)
    optimizer = state.learners[0].optimizer
    rate = optim.set_learning_rate(optimizer, settings, state.step, training.epoch_steps)
    source, device = training.source, training.device
    ready = batches(source, training.index, mine, state.epoch, device=device)
    for i, batch in enumerate(ready):
        share = len(batch.targets) / len(order[i])
        with matrix_precision(training.precision):
            steps.add(*_step(networks, state, batch, training, share))
        seen += len(order[i])
        if len(steps.pending) >= CHECK_EVERY or i + 1 == len(order):
            steps.check()
            speed = seen / (time.perf_counter() - started)
            training.progress.step(state.epoch, i + 1, len(order), state.losses[-1], speed)
    seconds = time.perf_counter() - started
    losses = state.losses[first:]
    state.log.append(
        EpochLog(
            epoch=state.epoch + 1,
            loss=sum(losses) / len(losses),
            aux=steps.means(),
            grad_norm=steps.largest_norm,
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
) -> StepResult:
    """One optimizer step of every learner; returns the result of the first.

    A learner sees its peer's logits from before any update, in both passes of SAM.
    """
    settings = training.settings
    inputs = to_device(batch.inputs, training.device)
    targets = batch.targets.to(training.device, non_blocking=True)

    def forward(network: Network) -> HeadOutput:
        with autocast(training.device, training.precision):
            return network(inputs)

    outputs = [forward(network) for network in networks]
    logits = [output.logits.detach() for output in outputs]
    results: list[StepResult] = []
    context = LossContext(state.epoch + 1, settings.epochs)
    for i, (one, network) in enumerate(zip(state.learners, networks, strict=True)):
        objective = _Objective(
            training, targets, share, context, peers=logits[:i] + logits[i + 1 :]
        )
        loss, extra = objective(outputs[i])
        one.backward(loss)
        if settings.sam_rho and not one.overflowed():
            with (
                optim.sam_perturbation(one.parameters, settings.sam_rho, settings.sam_adaptive),
                optim.batch_statistics_frozen(one.model, settings.sam_bn == "first"),
            ):
                second, _ = objective(forward(network))
                one.backward(second)
        optim.set_learning_rate(one.optimizer, settings, state.step, training.epoch_steps)
        results.append((loss, extra, one.update(settings.grad_clip)))
    state.step += 1
    return results[0]


@dataclass(frozen=True)
class _Objective:
    """The loss that a learner minimizes on this process's part of a batch.

    DDP averages gradients over processes with equal weight. ``share`` is this process's part of
    the global batch; weighting by it makes the average exact for parts of any size. A loss that
    sums over images is weighted so that the average is the global sum. One that is not separable is
    computed on the gathered batch by every process.
    """

    training: Training
    targets: Tensor
    share: float
    context: LossContext
    peers: Sequence[Tensor]

    def __call__(self, output: HeadOutput) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss and the named losses in it; their means over processes are the global ones."""
        training = self.training
        part = self.share * training.world.size
        extra = {name: value * part for name, value in output.aux.items()}
        with autocast(training.device, training.precision):
            if self.peers:
                divergence = mutual_divergence(output.logits, self.peers)
                extra["mutual"] = training.settings.mutual_weight * divergence * part
            loss = self._loss(output.logits)
            for value in extra.values():
                loss = loss + value
        return loss, extra

    def _loss(self, logits: Tensor) -> Tensor:
        loss, world, targets = self.training.loss, self.training.world, self.targets
        if world.size > 1 and not getattr(loss, "separable", True):
            sizes = part_sizes(round(len(targets) / self.share), world.size)
            whole = gather_rows(logits.float(), sizes, world.rank)
            targets = gather_rows(targets, sizes, world.rank)
            return evaluate_loss(loss, whole, targets, self.context)
        sums = getattr(loss, "reduction", "mean") == "sum"
        weight = world.size if sums else self.share * world.size
        return evaluate_loss(loss, logits, targets, self.context) * weight


def mutual_divergence(logits_BC: Tensor, peers: Sequence[Tensor]) -> Tensor:
    """The divergence of a model's predictions from its peers': a scalar, 0 if they agree.

    Zhang et al., Deep Mutual Learning, CVPR 2018 (arXiv:1706.00384), for many labels as in
    Prokofiev and Sovrasov (arXiv:2209.06585): every label is a Bernoulli variable of its own.
    KL(Bernoulli(p_j) || Bernoulli(p)), p = sigmoid(logits), is averaged over images, labels and
    peers j. Unknown labels count too: peers predict them.

    Args:
        logits_BC: of the model that learns.
        peers: logits [B, C] of the others; they get no gradient.
    """
    logits = logits_BC.float()
    divergences = []
    for peer in peers:
        target = peer.detach().float()
        p = target.sigmoid()
        # KL is the cross entropy less the entropy, which is the cross entropy with itself.
        divergences.append(cross_entropy(logits, p) - cross_entropy(target, p))
    return torch.stack(divergences).mean()


class _StepLog:
    """Losses and gradient norms of an epoch's steps; they stay on the device until ``check``.

    Args:
        losses: the loss of every step of the run so far; ``check`` appends to it.
        world: the processes that share each loss.
    """

    def __init__(self, losses: list[float], world: World) -> None:
        self.losses, self.world = losses, world
        self.pending: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.extra: dict[str, list[Tensor]] = {}
        self.largest_norm = 0.0

    def add(self, loss: Tensor, extra: Mapping[str, Tensor], norm: Tensor) -> None:
        """Add a step: its loss on this process, the named losses in it, and its gradient norm."""
        self.pending.append(loss.detach().float())
        self.norms.append(norm)
        for name, value in extra.items():
            self.extra.setdefault(name, []).append(value.detach().float())

    def check(self) -> None:
        """Fetch the pending losses.

        Raises:
            DivergedError: on every process, the first loss that is not finite.
        """
        before = len(self.losses)
        losses = self.world.mean(torch.stack(self.pending)).tolist()
        norms = torch.stack(self.norms)
        # Steps whose gradient overflowed are skipped by the scaler; their norm means nothing.
        self.largest_norm = max(self.largest_norm, *norms[norms.isfinite()].tolist(), 0.0)
        self.pending, self.norms = [], []
        self.losses.extend(losses)
        for i, value in enumerate(losses):
            if not math.isfinite(value):
                raise DivergedError(before + i + 1, value)

    def means(self) -> dict[str, float]:
        """The mean of every named loss over steps and processes."""
        if not self.extra:
            return {}
        names = sorted(self.extra)  # the same order on every process
        means = torch.stack([torch.stack(self.extra[name]).mean() for name in names])
        return dict(zip(names, self.world.mean(means).tolist(), strict=True))
