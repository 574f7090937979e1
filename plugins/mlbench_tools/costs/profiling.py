"""Costs of heads apart from their backbone, as a function of the number of labels.

Parameters and multiply-accumulates are counted on the ``meta`` device, as in records but without
weights, memory or time. Latency and memory are measured on request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlbench import registry
from mlbench.counting import count_backbone, count_head, make_head
from mlbench.engine.cost import device_name, latency, peak_memory
from mlbench.engine.model import autocast
from mlbench.types import Latency, MeasureError, PluginError, Precision, Settings, Value


class PartCost(Value):
    """Cost of a backbone or a head. GMACs are 1e9 multiply-accumulates an image.

    Attributes:
        latency: of the part alone, one a batch size; empty if not measured.
        peak_memory_mb: weights plus the peak of one call with the largest batch; None if not
            measured.
    """

    parameters: int
    gmacs: float
    latency: tuple[Latency, ...] = ()
    peak_memory_mb: float | None = None


class HeadProfile(Value):
    """Cost of a head at a number of labels.

    Attributes:
        cost: None if the head cannot have so many labels, or its work cannot be counted.
        refusal: why it was not counted, or not measured; empty otherwise.
    """

    method: str
    labels: int
    cost: PartCost | None
    refusal: str = ""


class BackboneProfile(Value):
    """Cost of a backbone, and of the heads on it."""

    backbone: str
    cost: PartCost
    heads: tuple[HeadProfile, ...]


class Profile(Value):
    """All counts and measurements.

    Attributes:
        device, precision, threads: of the measurements; None if nothing was measured.
    """

    image_size: int
    backbones: tuple[BackboneProfile, ...]
    device: str | None = None
    precision: Precision | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Measuring:
    """How to measure latency and memory."""

    device: torch.device
    precision: Precision = "fp32"
    batch_sizes: tuple[int, ...] = (1, 16)


def profile(
    heads: Mapping[str, Settings],
    backbones: Sequence[str],
    labels: Sequence[int],
    image_size: int,
    measuring: Measuring | None = None,
) -> Profile:
    """Profile every combination of head, backbone and number of labels.

    Args:
        heads: method -> settings, of which only the head and its options matter.
        backbones: plugin names.
        labels: numbers of labels.
        image_size: pixels of a side.
        measuring: how to measure latency and memory; None only counts.

    Raises:
        PluginError: a plugin is unknown or broken. A case that a head refuses is in its profile.
        MeasureError: the work of a backbone cannot be counted.
    """
    found = []
    for name in backbones:
        cost = PartCost(**count_backbone(name, image_size).counts._asdict())
        if measuring is not None:
            module = registry.find("backbone", name).load()(weights="none", image_size=image_size)
            image = torch.empty(1, 3, image_size, image_size, device="meta")
            cost = _measure(module, cost, measuring, image)
        place = {"backbone": name, "image_size": image_size}
        profiles = tuple(
            _head_profile(method, settings.model_copy(update=place), n, measuring)
            for method, settings in heads.items()
            for n in labels
        )
        found.append(BackboneProfile(backbone=name, cost=cost, heads=profiles))
    return Profile(
        image_size=image_size,
        backbones=tuple(found),
        device=measuring and device_name(measuring.device),
        precision=measuring and measuring.precision,
        threads=measuring and torch.get_num_threads(),
    )


def _head_profile(
    method: str, settings: Settings, labels: int, measuring: Measuring | None
) -> HeadProfile:
    """Count a head and, on request, measure it on random maps."""
    cost, refusal = None, ""
    try:
        cost = PartCost(**count_head(settings, labels)._asdict())
        if measuring is not None:
            maps = count_backbone(settings.backbone, settings.image_size).maps
            cost = _measure(make_head(settings, labels), cost, measuring, maps)
    except (PluginError, MeasureError) as error:
        refusal = str(error)
    except (MemoryError, RuntimeError) as error:  # out of memory, on the CPU or a GPU
        refusal = f"not measured: {error}"
    return HeadProfile(method=method, labels=labels, cost=cost, refusal=refusal)


def _measure(module: Any, cost: PartCost, measuring: Measuring, like: Any) -> PartCost:
    """Measure a module on random images or maps, of the shapes of ``like`` but for the batch."""
    device, sizes = measuring.device, measuring.batch_sizes
    module = module.eval().to(device).to(memory_format=torch.channels_last)
    inputs = {n: _random(like, n, device) for n in sizes}
    with torch.inference_mode(), autocast(device, measuring.precision):
        times = tuple(latency(module, inputs[n], n, device) for n in sizes)
        peak, _ = peak_memory(module, inputs[max(sizes)], device)
    return cost.model_copy(update={"latency": times, "peak_memory_mb": peak / 2**20})


def _random(like: Any, batch: int, device: torch.device) -> Any:
    if isinstance(like, tuple):
        return tuple(_random(one, batch, device) for one in like)
    made = torch.rand(batch, *like.shape[1:], device=device)
    return made.contiguous(memory_format=torch.channels_last)
