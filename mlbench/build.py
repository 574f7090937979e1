"""Names and options -> a model and its loss."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from mlbench import registry
from mlbench.data import transforms
from mlbench.data.labels import label_context
from mlbench.engine.model import MultiLabelModel
from mlbench.types import (
    LabelContext,
    Loss,
    Places,
    PluginError,
    RunSpec,
    Settings,
    Splits,
    WeightsError,
)

GIVEN = ("spec", "labels")
"""Parameters of heads and losses that the core gives and no user."""


def build(settings: Settings, labels: LabelContext, places: Places) -> tuple[MultiLabelModel, Loss]:
    """Backbone, head and loss of some settings, on the CPU.

    Raises:
        PluginError: a plugin is unknown or broken, lacks an option, or cannot serve the case.
        WeightsError: the backbone's weights are missing or do not fit.
    """
    weights = settings.weights
    if weights.startswith("sha256:"):
        weights = str(places.weights)
    factory = registry.find("backbone", settings.backbone).load()
    backbone = factory(weights=weights, image_size=settings.image_size)
    head = _make("head", settings.head, settings.head_options, (backbone.spec, labels))
    loss = _make("loss", settings.loss, settings.loss_options, (labels,))
    _agree_on_angles(head, loss, settings)
    asked = settings.preprocessing
    mean, std = asked.mean or backbone.mean, asked.std or backbone.std
    model = MultiLabelModel(backbone, head, mean, std)
    return model, loss


def _agree_on_angles(head: nn.Module, loss: Loss, settings: Settings) -> None:
    """Scale and exponent of the cosines are the loss's where it has them."""
    angles = getattr(loss, "angles", None)
    if angles is None:
        return
    classifiers: list[Any] = [m for m in head.modules() if hasattr(m, "angles")]
    if not classifiers:
        raise PluginError(
            f"loss {settings.loss} works on angles, and head {settings.head} with "
            f"{settings.head_options or 'its default options'} gives plain logits; use a head "
            "with a cosine classifier (`head_options: {classifier: cosine}`) or another loss"
        )
    for classifier in classifiers:
        classifier.angles = angles


def _make(kind: registry.Kind, name: str, options: dict[str, Any], given: tuple[Any, ...]) -> Any:
    factory = registry.find(kind, name).load()
    known = registry.options(factory, GIVEN)
    for option in options:
        if option not in known:
            what = f"option {option!r} of {kind} {name}"
            raise PluginError(registry.unknown(what, option, known))
    return factory(*given, **options)


def refusal(spec: RunSpec, splits: Splits, places: Places) -> str | None:
    """Why a run cannot be made at all, found without memory or time; None if it can."""
    labels, _ = label_context(splits.train, splits.names, places.words)
    settings = spec.settings
    untrained = settings.model_copy(update={"weights": "none"})
    try:
        transforms.train_transform(settings)
        with torch.device("meta"):
            build(untrained, labels, places)
    except PluginError as error:
        return str(error)
    if places.weights is None:  # what can be downloaded is found out when it is
        return None
    return _misfit(settings.backbone, str(places.weights), settings.image_size)


@functools.cache
def _misfit(backbone: str, weights: str, image_size: int) -> str | None:
    """Why a weights file does not fit a backbone; asked once for all runs of a matrix."""
    factory = registry.find("backbone", backbone).load()
    try:
        with torch.device("meta"):
            factory(weights=weights, image_size=image_size)
    except WeightsError as error:
        return str(error)
    return None
