"""Names and options -> a model and its loss."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mlbench import registry
from mlbench.backbones import outline
from mlbench.data import transforms
from mlbench.data.labels import label_context
from mlbench.engine import optimise
from mlbench.engine.model import MultiLabelModel
from mlbench.text import unknown
from mlbench.types import (
    Backbone,
    DataError,
    LabelContext,
    LabelNoise,
    Loss,
    Places,
    PluginError,
    RunSpec,
    Settings,
    Splits,
    SuiteError,
    WeightsError,
)

GIVEN = ("spec", "labels")
"""Parameters of heads and losses that the core gives and no user."""


def labels_of(
    spec: RunSpec, splits: Splits, places: Places
) -> tuple[LabelContext, tuple[str, ...]]:
    """The label context that a run is given, and notes for its record.

    Raises:
        DataError: the file of word vectors is missing, malformed, or knows none of the labels.
    """
    words: Path | Literal["cooccurrence", "random"] = "cooccurrence"
    if spec.words == "random":
        words = "random"
    elif places.words is not None and spec.words.startswith("sha256:"):
        words = places.words
    labels, notes = label_context(
        splits.train,
        splits.names,
        words,
        graph=spec.graph,
        seed=spec.seed,
        objects=splits.objects,
    )
    if spec.label_noise != LabelNoise():
        known, present = (int((splits.train.targets >= n).sum()) for n in (0, 1))
        notes += (f"label noise in train: {known:,} labels are known, {present:,} of them present",)
    return labels, notes


def as_it_uses(
    spec: RunSpec, splits: Splits, places: Places, words: str = "cooccurrence"
) -> RunSpec:
    """The spec without a label graph, or random words, that its head and loss do not look at.

    What they read of the label context when they are made is what they use. A run that would come
    out the same as another is not planned under a second name, and has one row on the board.

    Args:
        spec: as it was asked for.
        splits: the data set, opened.
        places: where files are.
        words: identity of the label vectors that take the place of random ones.
    """
    asked = {"graph": spec.graph != "cooccurrence", "words": spec.words == "random"}
    if not any(asked.values()):
        return spec
    labels, _ = labels_of(spec, splits, places)
    watched = _Watched(
        labels.names,
        labels.cooccurrence,
        labels.embeddings,
        labels.images,
        labels.count_objects,
    )
    try:
        _sketch(spec.settings, watched)
    except (PluginError, DataError):
        return spec  # to be refused, under the name that was asked for
    read = {"graph": "cooccurrence" in watched.read, "words": "embeddings" in watched.read}
    plain = {"graph": "cooccurrence", "words": words}
    unused = {name: plain[name] for name in asked if asked[name] and not read[name]}
    return spec.model_copy(update=unused)


@dataclass(frozen=True)
class _Watched(LabelContext):
    """A label context that notes which of its matrices were looked at."""

    read: set[str] = field(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        if name in ("cooccurrence", "embeddings"):
            object.__getattribute__(self, "read").add(name)
        return object.__getattribute__(self, name)

    @property
    def positives(self) -> NDArray[np.float32]:
        counts_CC: NDArray[np.float32] = object.__getattribute__(self, "cooccurrence")
        return counts_CC.diagonal()


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
    return _assemble(factory(weights=weights, image_size=settings.image_size), settings, labels)


def _sketch(settings: Settings, labels: LabelContext) -> MultiLabelModel:
    """The model on the ``meta`` device; its backbone is shared with others of the same settings."""
    with torch.device("meta"):
        return _assemble(outline(settings.backbone, settings.image_size), settings, labels)[0]


def _assemble(
    backbone: Backbone, settings: Settings, labels: LabelContext
) -> tuple[MultiLabelModel, Loss]:
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
            raise PluginError(unknown(what, option, known))
    return factory(*given, **options)


def refusal(spec: RunSpec, splits: Splits, places: Places) -> str | None:
    """Why a run cannot be made at all, found before an image is decoded; None if it can.

    Head and loss are made on the ``meta`` device, on a backbone that is made there once for all
    runs that have it, so this takes no memory, and the time of making a head and counting labels.
    Whether weights can be downloaded is not looked at.
    """
    labels, _ = labels_of(spec, splits, places)
    settings = spec.settings
    try:
        transforms.train_transform(settings)
        optimise.frozen(_sketch(settings, labels), settings)
    except (PluginError, DataError, SuiteError) as error:
        return str(error)
    if places.weights is None:
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
