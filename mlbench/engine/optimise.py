"""From settings to an optimiser, its parameter groups and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from mlbench.engine.model import MultiLabelModel
from mlbench.types import Optimizer, Schedule, Settings, SuiteError


def frozen(model: MultiLabelModel, settings: Settings) -> Sequence[Sequence[Any]]:
    """The stages of the backbone that are not trained.

    Raises:
        SuiteError: more stages are to be frozen than the backbone has.
    """
    stages = model.backbone.stages()
    count = settings.frozen_stages
    if count > len(stages):
        raise SuiteError(
            f"frozen_stages is {count} but {settings.backbone} has {len(stages)} stages; "
            "give at most that many, or -1 for all"
        )
    return stages if count == -1 else stages[:count]


def freeze(model: MultiLabelModel, settings: Settings) -> None:
    """Take the frozen stages of the backbone out of training.

    Raises:
        SuiteError: see ``frozen``.
    """
    for stage in frozen(model, settings):
        for parameter in _parameters(stage):
            parameter.requires_grad_(False)


def training_mode(model: MultiLabelModel, settings: Settings) -> None:
    """Training mode, with batch norms of frozen stages (or all, on request) left as they are."""
    model.train()
    count = len(frozen(model, settings))
    for i, stage in enumerate(model.backbone.stages()):
        for part in stage:
            if not isinstance(part, nn.Module):
                continue
            if i < count:
                part.eval()
            elif settings.freeze_bn:
                for module in part.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()


def _parameters(stage: object) -> Iterator[nn.Parameter]:
    for part in stage:  # type: ignore[attr-defined]
        if isinstance(part, nn.Module):
            yield from part.parameters()
        elif isinstance(part, nn.Parameter):
            yield part


NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
"""Normalisations: batch and instance norms of any dimension, group, layer and RMS norm."""


def optimizer(model: MultiLabelModel, settings: Settings) -> torch.optim.Optimizer:
    """The optimiser over what is trained.

    Head and backbone have their own learning rates, and within each the biases theirs; what is
    spared the weight decay has a group of its own.
    """
    chosen = settings.optimizer
    groups = [
        *_groups(model.head, chosen, chosen.lr),  # type: ignore[arg-type]
        *_groups(model.backbone, chosen, chosen.lr * settings.backbone_lr_scale),  # type: ignore[arg-type]
    ]
    if chosen.name == "sgd":
        return torch.optim.SGD(groups, momentum=chosen.momentum)
    made = torch.optim.Adam if chosen.name == "adam" else torch.optim.AdamW
    return made(groups, betas=(chosen.momentum, 0.999))


def _groups(part: nn.Module, chosen: Optimizer, rate: float) -> list[dict[str, Any]]:
    """The trained parameters of a part of the model, by learning rate and weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            bias = name.endswith("bias")
            small = bias or parameter.ndim < 2 or isinstance(module, NORMS)
            spared = small and not chosen.decay_norms_and_biases
            lr = rate * chosen.bias_lr_scale if bias else rate
            groups.setdefault((lr, 0.0 if spared else chosen.weight_decay), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "initial_lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


MOMENTA = (0.95, 0.85)
"""What a cycled momentum falls from and to: the defaults of torch's ``OneCycleLR``."""


def learning_rate_factor(schedule: Schedule, step: int, epoch_steps: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step of a run of ``steps`` steps."""
    rise = schedule.warmup * epoch_steps
    factor = min((step + 1) / rise, 1.0) if rise > 0 else 1.0
    if schedule.name == "one_cycle":
        return factor * _one_cycle(schedule, step, steps)
    if schedule.name == "step":
        passed = sum(step >= milestone * epoch_steps for milestone in schedule.milestones)
        factor *= schedule.gamma**passed
    return factor


def _one_cycle(schedule: Schedule, step: int, steps: int) -> float:
    """The rate's factors: 1/div -> 1 over ``pct_start`` of the run, then 1 -> 1/(div*final_div)."""
    ends = 1 / schedule.div, 1 / (schedule.div * schedule.final_div)
    return _there_and_back(schedule, step, steps, ends, 1.0)


def cycled_momentum(schedule: Schedule, step: int, steps: int) -> float | None:
    """The momentum (beta1) at a step of a run of ``steps`` steps; None is the optimiser's own."""
    if schedule.name != "one_cycle" or not schedule.cycle_momentum:
        return None
    high, low = MOMENTA
    return _there_and_back(schedule, step, steps, (high, high), low)


def _there_and_back(
    schedule: Schedule, step: int, steps: int, ends: tuple[float, float], middle: float
) -> float:
    """Two half cosines, as in ``torch.optim.lr_scheduler.OneCycleLR``."""
    top, last = schedule.pct_start * steps - 1, steps - 1
    if step <= top:
        return _half_cosine(ends[0], middle, step / top if top > 0 else 1.0)
    return _half_cosine(middle, ends[1], min((step - top) / (last - top), 1.0))


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(
    made: torch.optim.Optimizer, settings: Settings, step: int, epoch_steps: int
) -> float:
    """Give every group its learning rate of a step (from 0); returns the head's.

    Momentum comes with it where the schedule cycles it. Set outright rather than by torch's
    schedulers: nothing to keep but the step, and no warning when the scaler of half precision
    leaves the first step out.
    """
    steps = epoch_steps * settings.epochs
    factor = learning_rate_factor(settings.schedule, step, epoch_steps, steps)
    momentum = cycled_momentum(settings.schedule, step, steps)
    for group in made.param_groups:
        group["lr"] = group["initial_lr"] * factor
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif momentum is not None:
            group["momentum"] = momentum
    return settings.optimizer.lr * factor
