"""Which edition of a data set is here, and which of its images can be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mlbench.data.decode import MISSING, problems
from mlbench.data.open import coverage, files, parts
from mlbench.files import atomic_write
from mlbench.types import SplitCoverage, Splits, Value


class BadImage(Value):
    """An image that is missing or cannot be decoded."""

    split: str
    key: str
    file: str
    problem: Literal["missing", "corrupt"]
    reason: str


class ImageCheck(Value):
    """The result of ``mlbench data verify``.

    Attributes:
        identity: name of the edition, or ``<dataset>-unknown-<digest>``.
        known: True for a published edition or one of ours; None for a user's own pictures, of which
            nothing is published.
        digest: of keys and targets of both splits (see ``mlbench.types.digest``), not of images.
        usable: share of all images that can be used, from 0 to 1.
    """

    dataset: str
    identity: str
    known: bool | None
    digest: str
    usable: float
    splits: dict[str, SplitCoverage]
    bad: tuple[BadImage, ...]


def check_images(
    dataset: str,
    splits: Splits,
    cache: Path,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> ImageCheck:
    """Decode every image of both splits in parallel.

    Args:
        dataset: name of the plugin.
        splits: the opened data set.
        cache: where good files are remembered (see ``mlbench.data.decode.problems``).
        workers: number of decoding threads.
        progress: called with (files done, files in all).
    """
    wrong = problems(files(splits), cache, workers, progress)
    bad = tuple(
        BadImage(
            split=name,
            key=key,
            file=str(file),
            problem="missing" if wrong[file] == MISSING else "corrupt",
            reason=wrong[file],
        )
        for name, index in parts(splits).items()
        for key, file in zip(index.keys, index.files, strict=True)
        if file in wrong
    )
    found = coverage(splits, wrong)
    images = sum(split.images for split in found.splits.values())
    return ImageCheck(
        dataset=dataset,
        identity=splits.identity,
        known=found.known if splits.card.splits else None,
        digest=splits.digest,
        usable=1 - len(bad) / max(1, images),
        splits=found.splits,
        bad=bad,
    )


def write(found: ImageCheck, data: Path | None, cache: Path) -> Path:
    """Write the result next to the data, or into ``cache`` if that folder is read-only.

    Returns:
        The file written; it replaces that of an earlier check.

    Raises:
        OSError: the cache cannot be written either.
    """
    plain_name = re.sub(r"[^\w.-]+", "-", found.dataset)[-80:]
    name = f"mlbench-coverage-{plain_name}-{found.digest}.json"
    in_cache = cache / "coverage" / name
    for file in (in_cache,) if data is None else (data / name, in_cache):
        try:
            with atomic_write(file) as part:
                part.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
            break
        except OSError:  # a read-only folder, which is how data should be kept
            if file == in_cache:
                raise
    return file
