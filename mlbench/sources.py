"""What a run's batches are made of: its splits, and images or, in the probe track, feature maps."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from mlbench import registry
from mlbench.data import transforms
from mlbench.data.decode import problems, verify
from mlbench.data.loader import ImageSource, Source
from mlbench.data.open import open_run
from mlbench.engine.distributed import World
from mlbench.engine.features import FeatureCache, Maker
from mlbench.engine.model import MultiLabelModel
from mlbench.types import (
    DataError,
    Index,
    Places,
    Progress,
    RunSpec,
    Settings,
    Splits,
)

BATCH = 64
"""Images at a time for a backbone that is not trained."""


def open_data(spec: RunSpec, places: Places, world: World, progress: Progress) -> Splits:
    """Open the data of a run and decode every image once, so that a bad one stops it at the start.

    Raises:
        DataError: files are missing or damaged and ``spec.incomplete`` is not set, or the data
            changed since the run was planned.
    """

    def check(files: Sequence[Path]) -> dict[Path, str]:
        return world.ask_leader(lambda: _check(files, spec, places, progress))

    splits = open_run(spec, places, check)
    if splits.digest != spec.data:
        raise DataError(
            f"the data of {spec.dataset} changed since the run was planned; start again"
        )
    return splits


def _check(
    files: Sequence[Path], spec: RunSpec, places: Places, progress: Progress
) -> dict[Path, str]:
    if spec.incomplete:
        return problems(files, places.cache, places.workers, progress.count)
    try:
        verify(files, places.cache, places.workers, progress.count)
    except DataError as error:
        raise DataError(
            f"{error}\nor go on without them, on a board of their own: --set allow_missing=true"
        ) from error
    return {}


class Sources(NamedTuple):
    """Where the inputs of each split come from; ``validation`` is None where train is whole."""

    train: Source
    test: Source
    validation: Source | None


def image_sources(spec: RunSpec, splits: Splits, workers: int) -> Sources:
    """Augmented images of the training split, and those of the others as they are scored."""
    augment = transforms.train_transform(spec.settings)
    held = splits.validation
    return Sources(
        ImageSource(splits.train, augment, spec.seed, workers),
        _unaugmented(splits.test, spec.settings, workers),
        None if held is None else _unaugmented(held, spec.settings, workers),
    )


def feature_sources(
    spec: RunSpec, splits: Splits, model: MultiLabelModel, cache: FeatureCache, workers: int
) -> Sources:
    """The backbone's maps of all splits, from the cache or made by the model, on its device."""
    identity = _identity(spec, model)

    def source(name: str, index: Index) -> Source:
        images = _unaugmented(index, spec.settings, workers)
        return cache.source(name, index, identity, Maker(model, images, BATCH))

    held = splits.validation
    return Sources(
        source("train", splits.train),
        source("test", splits.test),
        None if held is None else source("validation", held),
    )


def _unaugmented(index: Index, settings: Settings, workers: int) -> ImageSource:
    test = transforms.test_transform(settings)
    return ImageSource(index, lambda image, _: test(image), 0, workers)


def _identity(spec: RunSpec, model: MultiLabelModel) -> dict[str, object]:
    """Everything that changes the maps of an image."""
    settings = spec.settings
    plugin = registry.find("backbone", settings.backbone)
    source = inspect.getsource(importlib.import_module(plugin.value.partition(":")[0]))
    return {
        "source": hashlib.sha256(source.encode()).hexdigest(),
        "backbone": plugin.label,
        "plugin": f"{plugin.distribution} {plugin.version}",
        "weights": settings.weights,
        "seed": spec.seed if settings.weights == "none" else None,
        "image_size": settings.image_size,
        "preprocessing": settings.preprocessing.model_dump(),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "versions": {name: version(name) for name in ("torch", "timm", "pillow")},
    }
