"""Which edition of a data set is here, and which of its images can be used."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from mlbench.data.decode import MISSING, problems
from mlbench.data.open import coverage, files, parts
from mlbench.files import atomic_write
from mlbench.text import shorten
from mlbench.types import SplitCoverage, Splits, Value

REPEATED = 5


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
        digest: over the keys and targets of both splits (``mlbench.types.digest``), not images.
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
    dataset: str, splits: Splits, cache: Path, workers: int, progress: Callable[[int, int], None]
) -> ImageCheck:
    """Decode every image of both splits in parallel."""
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


def tell_bad(found: ImageCheck, root: Path | None) -> list[str]:
    """One line on all missing images, with folders that hold such names; one on each bad image."""
    missing = [Path(one.file) for one in found.bad if one.problem == "missing"]
    lines = [f"{one.file}: {one.reason}" for one in found.bad if one.problem != "missing"]
    if not missing:
        return lines
    names = {file.name.lower() for file in missing}
    lacking = Counter(str(file.parent) for file in missing)
    there: Counter[str] = Counter()
    for folder, _, here in os.walk(root or missing[0].parent):
        there[folder] = sum(name.lower() in names for name in here)
    said = f"missing in {_numbers(lacking)}, the first is {missing[0].name}"
    if +there:
        said += f"; files of these names are in {_numbers(+there)}"
    return [said, *lines]


def _numbers(counts: Counter[str]) -> str:
    return shorten([f"{name} ({number:,})" for name, number in counts.most_common()], 3)


def tell_repeated(splits: Splits) -> list[str]:
    """A line on each picture that has many names with different labels.

    Such a picture is what a server sends for a photo that is gone. Files are the same picture if
    their sizes and last bytes agree; fewer than ``REPEATED`` are ignored.
    """
    same = defaultdict(list)
    for index in parts(splits).values():
        for file, target, key in zip(index.files, index.targets, index.keys, strict=True):
            # Files that cannot be read are reported already.
            with suppress(OSError), file.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size - 1024))
                same[size, stream.read()].append((key, target.tobytes()))
    return [
        f"{len(found):,} images with different labels are one picture, perhaps that of a dead "
        f"link: {shorten([key for key, _ in found], 3)}"
        for found in same.values()
        if len(found) >= REPEATED and len({target for _, target in found}) > 1
    ]


def write(found: ImageCheck, data: Path | None, cache: Path) -> Path:
    """Write the result next to the data, else (a read-only folder) into ``cache``.

    Returns the file, which replaces that of an earlier check.

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
