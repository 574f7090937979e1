"""What a run's batches are made of: images, or in the probe track feature maps made once."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from importlib.metadata import version

from mlbench import registry
from mlbench.data import transforms
from mlbench.data.loader import ImageSource, Source
from mlbench.engine.features import FeatureCache
from mlbench.engine.model import MultiLabelModel
from mlbench.types import Index, RunSpec, Settings, Splits

BATCH = 64
"""Images at a time for a backbone that is not trained."""


def image_sources(spec: RunSpec, splits: Splits, workers: int) -> tuple[Source, Source]:
    """Augmented images of the training split, and those of the test split as they are scored."""
    augment = transforms.train_transform(spec.settings)
    train = ImageSource(splits.train, augment, spec.seed, workers)
    return train, _unaugmented(splits.test, spec.settings, workers)


def feature_sources(
    spec: RunSpec, splits: Splits, model: MultiLabelModel, cache: FeatureCache, workers: int
) -> tuple[Source, Source]:
    """The backbone's maps of both splits, from the cache or made by the model, on its device."""
    identity = _identity(spec, model)
    sources = []
    for name, index in (("train", splits.train), ("test", splits.test)):
        made = (model, _unaugmented(index, spec.settings, workers), model.mean.device, BATCH)
        sources.append(cache.source(name, index, identity, lambda made=made: made))  # type: ignore[misc]
    return sources[0], sources[1]


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
