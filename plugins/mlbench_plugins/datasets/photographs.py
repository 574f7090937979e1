"""What the data sets of photographs share: where their folders lie and what they are tuned with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlbench.types import DataError

FINE_TUNING: dict[str, Any] = {
    "backbone": "resnet101",
    "image_size": 448,
    "epochs": 20,
    "batch_size": 32,
    "optimizer": {"name": "adamw", "lr": 1e-4, "weight_decay": 1e-4},
    "schedule": {"name": "one_cycle"},
    "augmentation": [
        {"name": "random_resized_crop", "options": {"scale": [0.7, 1.0]}},
        {"name": "flip"},
    ],
}
"""Settings of the controlled track, the same for every method (see ``DatasetCard.budget``)."""


def locate(root: Path | None, places: Iterable[str], sign: str, what: str) -> Path:
    """The first of ``places`` under ``root`` that holds ``sign`` (a relative path).

    Args:
        root: the folder that ``--data`` names, None if it was not given.
        places: relative paths of folders, likeliest first.
        sign: a path inside the right folder by which it is known.
        what: what is looked for and where it can be had, for the error.

    Raises:
        DataError: no folder was named or none of the places holds the sign.
    """
    if root is None:
        raise DataError(f"{what}: no folder was given; name the one that holds it with --data DIR")
    folders = [root / place for place in places]
    for folder in folders:
        if (folder / sign).exists():
            return folder
    looked = "\n  ".join(str(folder / sign) for folder in folders)
    raise DataError(
        f"{what}: not found under {root}; name the folder that holds it with --data DIR. "
        f"Looked for\n  {looked}"
    )
