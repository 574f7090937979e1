"""A checkpoint on the test split of a data set: its scores under the canonical protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlbench.build import build
from mlbench.data import transforms
from mlbench.data.decode import verify
from mlbench.data.loader import ImageSource
from mlbench.data.open import open_splits
from mlbench.engine.checkpoint import Checkpoint
from mlbench.engine.distributed import World
from mlbench.engine.evaluate import predict
from mlbench.engine.model import MultiLabelModel
from mlbench.files import sha256
from mlbench.metrics import score
from mlbench.registry import recorded_as
from mlbench.text import shorten
from mlbench.types import (
    Index,
    LabelContext,
    Places,
    Predictions,
    Progress,
    Scores,
    Splits,
    SuiteError,
    WeightsError,
)


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint scores.

    Attributes:
        identity: edition of the data.
        names: of the labels, the columns of the predictions, in the checkpoint's order.
        average_precision: percent a label, None where it has no positive.
        splits: the data set that it was scored on.
        dataset, options: plugin name and options that it is recorded under.
        started: when, as records have it.
    """

    identity: str
    names: tuple[str, ...]
    scores: Scores
    average_precision: tuple[float | None, ...]
    predictions: Predictions
    splits: Splits
    dataset: str
    options: Mapping[str, Any]
    started: str


def restore(checkpoint: Checkpoint, weights: Path | None = None) -> MultiLabelModel:
    """The model of a checkpoint, in evaluation mode on the CPU.

    Args:
        checkpoint: weights, settings and pixels.
        weights: the file that the backbone started from, where it started from one: its header may
            say how its architecture differs.

    Raises:
        WeightsError: that file is not given, or the weights do not fit the model.
    """
    settings = checkpoint.spec.settings
    start = "none"
    if settings.weights.startswith("sha256:"):
        start = _same_file(settings.weights, weights)
    settings = settings.model_copy(
        update={"weights": start, "preprocessing": checkpoint.preprocessing}
    )
    count = len(checkpoint.label_names)
    # The graph and the vectors of the labels are buffers, which the weights fill.
    labels = LabelContext(
        checkpoint.label_names,
        np.eye(count, dtype=np.float32),
        np.zeros((count, checkpoint.word_width), np.float32),
        1,
        lambda: np.ones(count, np.int64),
    )
    model, _ = build(settings, labels, Places(weights=weights, results=Path(), cache=Path()))
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights do not fit {settings.backbone} with {settings.head} as this version "
            f"builds them: {error}"
        ) from error
    return model.eval()


def _same_file(wanted: str, file: Path | None) -> str:
    """``wanted`` itself, if the file has this digest."""
    if file is None:
        raise WeightsError(
            f"the backbone of this checkpoint started from a file ({wanted}) whose header may say "
            "how it is built; give that file with --weights FILE"
        )
    try:
        found = sha256(file)
    except OSError as error:
        raise WeightsError(f"--weights {file} cannot be read ({error.strerror})") from error
    if not found.startswith(wanted.removeprefix("sha256:")):
        raise WeightsError(
            f"--weights {file} is sha256:{found[:16]}, but the backbone of this checkpoint started "
            f"from {wanted}; give that file"
        )
    return wanted


def evaluate(
    checkpoint: Checkpoint,
    dataset: str,
    options: Mapping[str, Any],
    places: Places,
    progress: Progress,
    batch_size: int = 64,
) -> Evaluation:
    """Score a checkpoint on the test split of a data set.

    Args:
        checkpoint: of a run, or imported.
        dataset: plugin name.
        options: of the data set, beside those that the checkpoint was trained on it with.
        places: where data and cache are, the device, and the weights (see ``restore``).
        progress: who wants to know how it gets on.
        batch_size: images at a time.

    Raises:
        SuiteError: the labels are not those of the checkpoint.
        WeightsError: the weights do not fit.
        DataError: files are missing or damaged.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    model = restore(checkpoint, places.weights)
    progress.stage("data")
    spec = checkpoint.spec
    dataset, options = recorded_as(dataset, options)
    trained_on, trained = recorded_as(spec.dataset, spec.dataset_options)
    options = {**(trained if trained_on == dataset else {}), **options}
    splits = open_splits(dataset, options, places.data, places.cache)
    test = _columns(checkpoint, splits, dataset)
    verify(test.files, places.cache, places.workers, progress.count)
    progress.stage("evaluation")
    device = torch.device(places.device)
    settings = spec.settings.model_copy(update={"preprocessing": checkpoint.preprocessing})
    transform = transforms.test_transform(settings)
    predictions = predict(
        model.to(device).to(memory_format=torch.channels_last),
        ImageSource(test, lambda image, _: transform(image), 0, places.workers),
        test,
        World(),
        device=device,
        precision="fp32",
        batch_size=batch_size,
    )
    progress.stage("metrics")
    scores, precisions = score(predictions.logits, predictions.targets)
    return Evaluation(
        splits.identity,
        checkpoint.label_names,
        scores,
        precisions,
        predictions,
        splits,
        dataset,
        options,
        started,
    )


def _columns(checkpoint: Checkpoint, splits: Splits, dataset: str) -> Index:
    """The test split with its labels in the order of the checkpoint, by name.

    Only a checkpoint that was trained on some of the labels may lack others.
    """
    lacking = [name for name in checkpoint.label_names if name not in splits.names]
    beyond = [name for name in splits.names if name not in checkpoint.label_names]
    if lacking or (beyond and checkpoint.spec.labels is None):
        said = [f"{dataset} lacks {shorten(lacking)}"] if lacking else []
        said += [f"the checkpoint lacks {shorten(beyond)}"] if beyond else []
        raise SuiteError(
            f"the labels of {dataset} are not those of the checkpoint: {'; '.join(said)}; "
            f"evaluate it on {checkpoint.spec.dataset}, that it was trained on"
        )
    return splits.test.select([splits.names.index(name) for name in checkpoint.label_names])
