"""What every backbone must do, without its weights; the shapes are found without computing."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlbench.contracts.outcome import NotChecked, ensure, ensure_close, ensure_finite

SIZES = (384, 192)
"""Sides of square images; the first is what the backbone is made for."""
COMPUTED = 25_000_000
"""Backbones of more parameters are not run on real numbers: it would take minutes."""


@functools.lru_cache(maxsize=1)
def _shape_only(factory: Any) -> Any:
    with torch.device("meta"):
        return factory(weights="none", image_size=SIZES[0])


def keeps_its_spec(factory: Any) -> None:
    """Each level has the channels and the stride that the spec says, at two sizes."""
    backbone = _shape_only(factory)
    ensure(isinstance(backbone, nn.Module), f"gives {type(backbone)}, not an nn.Module")
    strides = [level.stride for level in backbone.spec]
    ensure(strides == sorted(strides), f"the levels are not shallow to deep: strides {strides}")
    for side in _sides(backbone):
        maps = _call(backbone, torch.zeros(2, 3, side, side, device="meta"))
        rows = [side // level.stride if level.stride else 1 for level in backbone.spec]
        wanted = [(2, lv.channels, n, n) for lv, n in zip(backbone.spec, rows, strict=True)]
        found = [tuple(m.shape) for m in maps]
        ensure(found == wanted, f"images of {side} give maps {found}, the spec says {wanted}")


def says_how_to_normalise(factory: Any) -> None:
    """``mean`` and ``std`` are three numbers each, the latter above 0."""
    backbone = _shape_only(factory)
    for name in ("mean", "std"):
        values = getattr(backbone, name, None)
        right = isinstance(values, tuple) and len(values) == 3
        ensure(right, f"{name} is {values}, not 3 numbers", name)
    ensure(min(backbone.std) > 0, f"std is {backbone.std}", "std")


def divides_into_stages(factory: Any) -> None:
    """Every parameter and buffer belongs to exactly one stage."""
    backbone = _shape_only(factory)
    owned = Counter(id(t) for stage in backbone.stages() for part in stage for t in _tensors(part))
    for name, tensor in [*backbone.named_parameters(), *backbone.named_buffers()]:
        count = owned.pop(id(tensor), 0)
        ensure(count == 1, f"{name} belongs to {count} stages, not one")
    ensure(not owned, f"{len(owned)} tensors of its stages are not its own")
    ensure(len(backbone.stages()) > 1, "it has one stage; freezing a part of it is impossible")


def trains_every_parameter(factory: Any) -> None:
    """The levels depend on every trainable parameter: what only a classifier needs is gone."""
    backbone = _shape_only(factory).train()
    side = _sides(backbone)[0]
    maps = _call(backbone, torch.zeros(2, 3, side, side, device="meta"))
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    total = torch.stack([m.sum() for m in maps]).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    idle = [n for n, g in zip(names, gradients, strict=True) if g is None]
    ensure(not idle, f"no gradient reaches {idle}")


def treats_images_independently(factory: Any) -> None:
    """In evaluation an image's maps are finite, deterministic, and do not depend on its batch."""
    count = sum(p.numel() for p in _shape_only(factory).parameters())
    if count > COMPUTED:
        raise NotChecked(f"{count / 1e6:.0f} million parameters would take too long")
    torch.manual_seed(0)
    backbone = factory(weights="none", image_size=SIZES[0]).eval()
    side = _sides(backbone, (64,))[0]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = _call(backbone, images), _call(backbone, images[1:])
    for level, (batch, one) in enumerate(zip(together, alone, strict=True)):
        ensure_finite(batch, f"level {level} of the maps")
        ensure_close(batch[1:], one, f"level {level} depends on the other images", 1e-3)


def _sides(backbone: Any, sizes: Sequence[int] = SIZES) -> list[int]:
    """The largest sides up to these sizes that every stride divides."""
    step = math.lcm(*(level.stride or 1 for level in backbone.spec))
    return [size // step * step for size in sizes]


def _call(backbone: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """The maps of a backbone, once they are a tuple."""
    maps: tuple[Tensor, ...] = backbone(images)
    what = f"forward returns {type(maps).__name__}, not a tuple of maps"
    ensure(isinstance(maps, tuple), f"{what}; write return shallow, deep or return (map,)")
    return maps


def _tensors(part: nn.Module | Tensor) -> list[Tensor]:
    return [part] if isinstance(part, Tensor) else [*part.parameters(), *part.buffers()]
