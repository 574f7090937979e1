"""The contracts of backbones, heads and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Level(NamedTuple):
    """One feature map of a backbone: channels D and stride in pixels of the input."""

    channels: int
    stride: int


FeatureSpec = tuple[Level, ...]
"""The levels of a backbone, shallow to deep; the last is what its own classifier would pool."""


class HeadOutput(NamedTuple):
    """What a head returns: logits [B, C] and named, weighted scalars added to the loss."""

    logits: Tensor
    aux: Mapping[str, Tensor] = {}


class Angles(NamedTuple):
    """How logits are made of cosines: ``scale * (2 ((cos + 1) / 2)^exponent - 1)``.

    A classifier on angles has an attribute ``angles`` of this type, and so has a loss that only
    makes sense on angles; the core gives the loss's to the classifier of the run, and refuses such
    a loss for a head without one.
    """

    scale: float = 23.0
    exponent: float = 1.0


class Backbone(Protocol):
    """An ``nn.Module``: images [B, 3, H, W] (normalised) to one map [B, D, H, W] a level.

    ``stages`` are its parts from the input to the deepest map, for freezing; every parameter and
    buffer of the module belongs to exactly one of them. ``mean`` and ``std`` are what its weights
    were trained with. A factory is called as ``factory(weights=..., image_size=...)`` with
    ``"default"``, ``"none"`` or a file's path, and the side of the square images to come.
    """

    spec: FeatureSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def stages(self) -> Sequence[Sequence[Any]]:
        """Groups of modules or parameters, shallow to deep."""
        ...

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, H, W] -> one map a level of ``spec``."""
        ...


class Head(Protocol):
    """An ``nn.Module`` made by ``factory(spec, labels, **options)``: a function of features alone.

    What it knows of the labels enters at construction and lives in buffers. A case that it cannot
    serve is refused in the constructor with a ``PluginError`` that says what to use instead. A
    module of it whose logits are made of cosines has an attribute ``angles`` (see ``Angles``).
    """

    def __call__(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """One map a level -> logits [B, C]."""
        ...


class Loss(Protocol):
    """Made by ``factory(labels, **options)``: (logits [B, C], targets int8 [B, C]) -> scalar.

    Unknown labels (-1) weigh nothing in value and gradient. The value is a mean over images; a loss
    that adds up over them instead says so by an attribute ``reduction`` that is ``"sum"``, and one
    that works on angles by an attribute ``angles`` (see ``Angles``).
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The scalar loss."""
        ...
