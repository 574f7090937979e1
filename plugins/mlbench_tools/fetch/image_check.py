"""Which edition of a data set is here, and which of its images can be used."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mlbench.data.decode import MISSING, problems
from mlbench.data.open import coverage, files, parts
from mlbench.files import atomic_write, sha256
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


def tell_bad(found: ImageCheck, root: Path | None) -> list[str]:
    """Lines on the bad images: one for the missing ones of all folders, one for each damaged one.

    Args:
        found: the result.
        root: the folder in which files of the missing names are looked for.
    """
    missing = [Path(one.file) for one in found.bad if one.problem == "missing"]
    lines = [f"{one.file}: {one.reason}" for one in found.bad if one.problem != "missing"]
    if not missing:
        return lines
    names = {file.name.lower() for file in missing}
    there = Counter(
        folder
        for folder, _, files in os.walk(root or missing[0].parent)
        for file in files
        if file.lower() in names
    )
    where = [f"{folder} ({count:,})" for folder, count in there.most_common()]
    lacking = Counter(str(file.parent) for file in missing)
    said = f"; files of these names are in {shorten(where, 3)}" if where else ""
    folders = shorten([f"{folder} ({n:,})" for folder, n in lacking.most_common()], 3)
    return [f"missing in {folders}, the first is {missing[0].name}{said}", *lines]


def tell_repeated(splits: Splits) -> list[str]:
    """Lines on pictures that stand under several names with different labels, most often first.

    That is what a server sends for a photo that is gone. Fewer than ``REPEATED`` names are no sign.
    """
    places = {
        file: (index.keys[i], index.targets[i].tobytes())
        for index in parts(splits).values()
        for i, file in enumerate(index.files)
        if file.is_file()
    }
    groups: dict[object, list[Path]] = {None: list(places)}
    for mark in (lambda file: file.stat().st_size, _end_of, sha256):
        finer: dict[object, list[Path]] = {}
        for files_of_mark in groups.values():
            for file in files_of_mark:
                finer.setdefault(mark(file), []).append(file)
        groups = {one: found for one, found in finer.items() if len(found) >= REPEATED}
    return [
        f"{len(found):,} images with different labels are one picture, perhaps that of a dead "
        f"link: {shorten([places[file][0] for file in found], 3)}"
        for found in sorted(groups.values(), key=len, reverse=True)
        if len({places[file][1] for file in found}) > 1
    ]


def _end_of(file: Path) -> bytes:
    """The last bytes of a file, in which pictures of equal size differ."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 1024))
        return stream.read()


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
