"""Costs of heads apart from their backbone, as a function of the number of labels.

Parameters and multiply-accumulates are counted on the ``meta`` device, as in records but without
weights, memory or time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlbench.types import MeasureError, PluginError, Settings, Value
from mlbench_tools.costs.counting import count_backbone, count_head


class PartCost(Value):
    """Cost of a backbone or a head. GMACs are 1e9 multiply-accumulates an image."""

    parameters: int
    gmacs: float


class HeadProfile(Value):
    """Cost of a head at a number of labels.

    Attributes:
        cost: None if the head cannot have so many labels, or its work cannot be counted.
        refusal: why it was not counted; empty otherwise.
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
    """All counts."""

    image_size: int
    backbones: tuple[BackboneProfile, ...]


def profile(
    heads: Mapping[str, Settings],
    backbones: Sequence[str],
    labels: Sequence[int],
    image_size: int,
) -> Profile:
    """Profile every combination of head, backbone and number of labels.

    Raises:
        PluginError: a plugin is unknown or broken. A case that a head refuses is in its profile.
        MeasureError: the work of a backbone cannot be counted.
    """
    found = []
    for name in backbones:
        cost = PartCost(**count_backbone(name, image_size).counts._asdict())
        place = {"backbone": name, "image_size": image_size}
        profiles = tuple(
            _head_profile(method, settings.model_copy(update=place), n)
            for method, settings in heads.items()
            for n in labels
        )
        found.append(BackboneProfile(backbone=name, cost=cost, heads=profiles))
    return Profile(image_size=image_size, backbones=tuple(found))


def _head_profile(method: str, settings: Settings, labels: int) -> HeadProfile:
    cost, refusal = None, ""
    try:
        cost = PartCost(**count_head(settings, labels)._asdict())
    except (PluginError, MeasureError) as error:
        refusal = str(error)
    return HeadProfile(method=method, labels=labels, cost=cost, refusal=refusal)
