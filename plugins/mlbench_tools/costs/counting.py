"""Parameters and GMACs of backbones and heads, counted on the ``meta`` device for commands."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from mlbench import registry
from mlbench.build import meta_backbone
from mlbench.engine.cost import count
from mlbench.types import WORD_WIDTH, LabelContext, PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from mlbench.types import FeatureSpec, Settings

IMAGES = 2
"""Images of the batch whose work is counted; they share the work that depends on labels alone."""


@dataclass(frozen=True)
class Counts:
    """Parameters, and 1e9 multiply-accumulates an image, of a backbone or a head."""

    parameters: int
    gmacs: float


class Outline(NamedTuple):
    """The feature maps of a backbone for ``IMAGES`` images, on the ``meta`` device."""

    spec: FeatureSpec
    maps: tuple[Tensor, ...]
    counts: Counts


@functools.lru_cache(maxsize=64)
def count_backbone(name: str, image_size: int) -> Outline:
    """Count a backbone as records do.

    Raises:
        PluginError: as in ``meta_backbone``, or the images are too small.
        MeasureError: some of its work would be counted as 0.
    """
    module: Any = meta_backbone(name, image_size)
    images = torch.zeros(IMAGES, 3, image_size, image_size, device="meta")
    maps: list[tuple[Tensor, ...]] = []
    what = f"{name} takes no images of {image_size} pixels"
    with registry.typed_errors([registry.find("backbone", name)], what):
        macs = count(module, lambda: maps.append(module(images)), [images], name)
    return Outline(module.spec, maps[0], _counts(module, macs))


def count_head(settings: Settings, labels: int, words: int = WORD_WIDTH) -> Counts:
    """Count a head, on its backbone's maps, as records do; thousands of labels take no memory.

    Raises:
        PluginError: the head cannot serve the case.
        MeasureError: some of its work would be counted as 0.
    """
    spec, maps, _ = count_backbone(settings.backbone, settings.image_size)
    with torch.device("meta"):
        head = make_head(settings.head, settings.head_options, spec, labels, words).eval()
        return _counts(head, count(head, lambda: head(maps), maps, settings.head))


def make_head(
    name: str, options: Mapping[str, Any], spec: FeatureSpec, labels: int, words: int = WORD_WIDTH
) -> nn.Module:
    """Make a head with made-up labels, and with vectors as wide as its maps if it needs such.

    Raises:
        PluginError: the head cannot serve the case.
    """
    plain, wide = (uniform_context(labels, width) for width in (words, spec[-1].channels))
    try:
        head: nn.Module = registry.make("head", name, (spec, plain), options)
    except PluginError:
        head = registry.make("head", name, (spec, wide), options)
    return head


def _counts(module: nn.Module, macs: int) -> Counts:
    return Counts(sum(p.numel() for p in module.parameters()), macs / IMAGES / 1e9)


def uniform_context(count: int, words: int = WORD_WIDTH) -> LabelContext:
    """Made-up labels that occur together in every image but one, to count or time a head with.

    All arrays are views of a single number, so thousands of labels take no memory.
    """
    names = tuple(f"label {i}" for i in range(count))
    one = np.ones((), np.float32)
    counts_CC, words_CE = (np.broadcast_to(one, (count, width)) for width in (count, words))
    return LabelContext(names, counts_CC, words_CE, count + 1, lambda: np.ones(count, np.int64))
