"""What heads cost apart from their backbone, as a function of the number of labels.

Parameters and multiply-accumulates are counted on the ``meta`` device, as for records but without
weights, memory or time; latency and memory are measured only where that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlbench import registry
from mlbench.backbones import outline
from mlbench.contracts.made_up import uniform_context
from mlbench.engine.efficiency import device_name, latency, peak_memory
from mlbench.engine.flops import count
from mlbench.engine.precision import autocast
from mlbench.types import (
    FeatureSpec,
    Latency,
    MeasureError,
    PluginError,
    Precision,
    Settings,
    Value,
)

WORDS = 300
"""Width of the word vectors."""
BATCH = 2
"""Images that work is counted for, then divided by: work on labels alone is shared, as in the
records."""


class Part(Value):
    """A backbone or a head. GMACs are 1e9 multiply-accumulates an image.

    Attributes:
        latency: of the part alone, one a batch size; empty where it was not measured.
        peak_memory_mb: its weights and the most that one call of the largest batch holds.
    """

    parameters: int
    gmacs: float
    latency: tuple[Latency, ...] = ()
    peak_memory_mb: float | None = None


class HeadProfile(Value):
    """A head at a number of labels, or why there is none.

    Attributes:
        cost: None where the head cannot serve the case, or its work cannot be counted.
        refusal: why there is no cost, or none that was measured; empty otherwise.
    """

    method: str
    labels: int
    cost: Part | None
    refusal: str = ""


class BackboneProfile(Value):
    """A backbone with the heads on it."""

    backbone: str
    cost: Part
    heads: tuple[HeadProfile, ...]


class Profile(Value):
    """What was counted and measured.

    Attributes:
        device: the product's name, None where nothing was measured; likewise the next two.
    """

    image_size: int
    backbones: tuple[BackboneProfile, ...]
    device: str | None = None
    precision: Precision | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Measuring:
    """How latency and memory are taken."""

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
    """Count heads apart from backbones, for every combination.

    Args:
        heads: method -> settings, of which the head and its options count.
        backbones: plugin names.
        labels: numbers of labels.
        image_size: pixels of a side.
        measuring: how latency and memory are measured; None counts only.

    Raises:
        PluginError: a plugin is unknown or broken; what a head cannot serve is in its profile.
        MeasureError: the work of a backbone cannot be counted.
    """
    found = []
    for name in backbones:
        trunk = Trunk(name, image_size)
        cost = trunk.cost if measuring is None else trunk.measured(measuring)
        cases = [(method, heads[method], n) for method in heads for n in labels]
        profiles = tuple(_head(trunk, *case, measuring) for case in cases)
        found.append(BackboneProfile(backbone=name, cost=cost, heads=profiles))
    if measuring is None:
        return Profile(image_size=image_size, backbones=tuple(found))
    return Profile(
        image_size=image_size,
        backbones=tuple(found),
        device=device_name(measuring.device),
        precision=measuring.precision,
        threads=torch.get_num_threads(),
    )


class Trunk:
    """A backbone without memory: its cost, and maps for heads to be counted on.

    Args:
        name: of the plugin.
        image_size: pixels of a side.
    """

    def __init__(self, name: str, image_size: int) -> None:
        self.image_size = image_size
        self.factory = registry.find("backbone", name).load()
        module: Any = outline(name, image_size)
        images = torch.zeros(BATCH, 3, image_size, image_size, device="meta")
        maps: list[tuple[Tensor, ...]] = []
        macs = count(module, lambda: maps.append(module(images)), [images], name)
        self.spec: FeatureSpec = module.spec
        self.maps = maps[0]
        self.cost = _part(module, macs)

    def head(self, settings: Settings, labels: int) -> Part:
        """What a head costs on these maps.

        Raises:
            PluginError: the head cannot serve the case.
            MeasureError: part of its work would have been counted as 0.
        """
        with torch.device("meta"):
            module = _make(settings, self.spec, labels)
            macs = count(module, lambda: module(self.maps), self.maps, settings.head)
        return _part(module, macs)

    def measured(self, measuring: Measuring) -> Part:
        """The backbone's cost, with latency and memory of random images."""
        module = self.factory(weights="none", image_size=self.image_size)
        images = {n: torch.rand(n, 3, *[self.image_size] * 2) for n in measuring.batch_sizes}
        return _measure(module, images, self.cost, measuring)

    def measured_head(self, settings: Settings, labels: int, measuring: Measuring) -> Part:
        """A head's cost, with latency and memory on random maps.

        Raises:
            PluginError, MeasureError: see ``head``; or it does not fit into memory.
        """
        cost = self.head(settings, labels)
        if (free := _free_memory(measuring.device)) is not None and 4 * cost.parameters > free:
            raise MeasureError(
                f"not measured: {4 * cost.parameters / 1e9:.1f} GB of weights do not fit into the "
                f"{free / 1e9:.1f} GB that are free"
            )
        maps = {
            n: tuple(torch.rand(n, *one.shape[1:]) for one in self.maps)
            for n in measuring.batch_sizes
        }
        try:
            return _measure(_make(settings, self.spec, labels), maps, cost, measuring)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise MeasureError(f"not measured: out of memory ({error})") from error


def _head(
    trunk: Trunk, method: str, settings: Settings, labels: int, measuring: Measuring | None
) -> HeadProfile:
    cost = None
    try:
        cost = trunk.head(settings, labels)
        if measuring is not None:
            cost = trunk.measured_head(settings, labels, measuring)
    except (PluginError, MeasureError) as error:
        return HeadProfile(method=method, labels=labels, cost=cost, refusal=str(error))
    return HeadProfile(method=method, labels=labels, cost=cost)


def _make(settings: Settings, spec: FeatureSpec, labels: int) -> Any:
    factory = registry.find("head", settings.head).load()
    return factory(spec, uniform_context(labels, WORDS), **settings.head_options).eval()


def _part(module: nn.Module, macs: int) -> Part:
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Part(parameters=parameters, gmacs=macs / BATCH / 1e9)


def _measure(module: Any, inputs: Mapping[int, Any], cost: Part, measuring: Measuring) -> Part:
    device = measuring.device
    module = module.eval().to(device).to(memory_format=torch.channels_last)
    ready = {n: _placed(batch, device) for n, batch in inputs.items()}
    with torch.inference_mode(), autocast(device, measuring.precision):
        times = tuple(latency(module, batch, n, device) for n, batch in ready.items())
        peak, _ = peak_memory(module, ready[max(ready)], device)
    return cost.model_copy(update={"latency": times, "peak_memory_mb": peak / 2**20})


def _placed(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, tuple):
        return tuple(_placed(one, device) for one in batch)
    return batch.to(device).contiguous(memory_format=torch.channels_last)


def _free_memory(device: torch.device) -> int | None:
    """Bytes, None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
