"""Whether an exported model computes on real pictures what the original computes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.cli.console import cache_folder
from mlbench.data.open import open_splits
from mlbench.metrics.average_precision import average_precision
from mlbench.registry import recorded_as
from mlbench.text import count
from mlbench.trained_model import TrainedModel, find_pictures
from mlbench.types import DataError, MlbenchError, ModelFile, SuiteError, Targets, WeightsError
from mlbench_tools.scoring.evaluate import select_labels

BATCHES = (1, 5)
"""Sizes of the batches that are compared; the program was exported with another one."""
PICTURES = 100
"""Largest number of pictures that are compared."""
TOLERANCE = 1e-3
"""Largest difference of a logit, as a fraction of the standard deviation of all logits."""
TOLERANCE_MAP = 0.1
"""Largest difference of mAP, in percent."""


def read_pictures(
    trained: TrainedModel, data: Path | None, pictures: Path | None
) -> tuple[Tensor, Targets | None]:
    """Pictures of a folder, or of the test split of the data set that the model was trained on.

    Returns:
        uint8 [N, 3, S, S], and targets int8 [N, C] if they are known.
    """
    spec, targets = trained.info.spec, None
    if pictures is not None:
        files = find_pictures(pictures)
    else:
        dataset, options = recorded_as(spec.dataset, spec.dataset_options)
        try:
            splits = open_splits(dataset, options, data, cache_folder())
            test = select_labels(trained.info, splits, dataset)
        except (MlbenchError, OSError) as error:
            raise SuiteError(
                f"an export is compared with the model on real pictures, and {spec.dataset} cannot "
                f"be opened ({error}); name its folder with --data, or any pictures with --pictures"
            ) from error
        files, targets = list(test.files), test.targets
    tried = ((i, trained.pixels(file)) for i, file in enumerate(files))
    readable = ((i, found) for i, found in tried if not isinstance(found, str))
    kept = dict(islice(readable, PICTURES))
    if not kept:
        raise DataError(f"none of the pictures in {files[0].parent} can be read; give others")
    return torch.stack([*kept.values()]), None if targets is None else targets[[*kept]]


def compare(
    trained: TrainedModel, exported: ModelFile, pixels: Tensor, targets: Targets | None
) -> str:
    """Compare an exported model with the original; return the differences, in words.

    Raises:
        WeightsError: logits differ by more than ``TOLERANCE`` or mAP by more than
            ``TOLERANCE_MAP``.
    """
    with torch.inference_mode():
        wanted = _logits(trained.network, pixels, 64)
        found = {size: _logits(exported.network, pixels, size) for size in BATCHES}
    spread = float(wanted.std())
    largest = {size: float(np.abs(one - wanted).max()) / spread for size, one in found.items()}
    worst = max(largest.values())
    change = None  # without a label that has an AP
    if targets is not None and not np.isnan(before := average_precision(wanted, targets)).all():
        after = [average_precision(one, targets) for one in found.values()]
        change = max(abs(100 * float(np.nanmean(one) - np.nanmean(before))) for one in after)
    said = ", ".join(f"{value:.1e} at batch {size}" for size, value in largest.items())
    report = (
        f"{count(len(wanted), 'picture')} compared; logits differ by at most {said} of their spread"
    )
    if change is not None:
        report += f", mAP by {change:.3f}"
    # NaN compares false.
    if not worst <= TOLERANCE or (change is not None and not change <= TOLERANCE_MAP):
        raise WeightsError(
            f"not exported: {report}; `mlbench check {trained.info.settings.head}` tells if its "
            "code depends on the batch, or does something else when exported; else try another "
            "--format or another version of the runtime"
        )
    return report


def _logits(network: Callable[..., Any], pixels: Tensor, size: int) -> NDArray[np.float32]:
    parts = [network(batch).logits.float().numpy() for batch in pixels.split(size)]
    return np.concatenate(parts)
