"""Which edition of a data set is in hand, and which of its images can be used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mlbench.data.decode import MISSING, problems
from mlbench.data.open import coverage, files, parts
from mlbench.files import atomic_write
from mlbench.types import SplitCoverage, Splits, Value
from mlbench_tools.fetch.standing import fewer, standing


class BadImage(Value):
    """An image that is missing or cannot be decoded."""

    split: str
    key: str
    file: str
    problem: Literal["missing", "corrupt"]
    reason: str


class Verification(Value):
    """What was found.

    Attributes:
        identity: name of the edition, or ``<dataset>-unknown-<digest>``.
        known: whether it is a published edition, or one of ours; None for a user's own pictures,
            of which nothing is published.
        digest: of keys and targets of both splits (see ``mlbench.types.digest``); images do not
            enter it.
        usable: part of all images that can be used, from 0 to 1.
        standing: how far an unknown edition agrees with the official numbers, where it does.
        fewer: edition -> how many images of it are not here, where only their number tells.
    """

    dataset: str
    identity: str
    known: bool | None
    digest: str
    usable: float
    splits: dict[str, SplitCoverage]
    bad: tuple[BadImage, ...]
    standing: str = ""
    fewer: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing or corrupt."""
        return not self.bad and not self.fewer


def examine(
    dataset: str,
    splits: Splits,
    cache: Path,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Decode every image of both splits in parallel.

    Args:
        dataset: name of the plugin.
        splits: the data set, opened.
        cache: where good files are remembered (see ``mlbench.data.decode.problems``).
        workers: decoding threads.
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
    return Verification(
        dataset=dataset,
        identity=splits.identity,
        known=found.known if splits.card.splits else None,
        digest=splits.digest,
        usable=1 - len(bad) / max(1, images),
        splits=found.splits,
        bad=bad,
        standing="" if found.known else standing(splits),
        fewer=fewer(splits),
    )


def plain(found: Verification) -> dict[str, Any]:
    """What was found as plain data; whether it is known is left out where that means nothing."""
    return found.model_dump(mode="json", exclude={"known"} if found.known is None else None)


def file_name(dataset: str, digest: str) -> str:
    """What the file is called that says the coverage of this data set and edition."""
    plain = re.sub(r"[^\w.-]+", "-", dataset)[-80:]
    return f"mlbench-coverage-{plain}-{digest}.json"


def write(found: Verification, data: Path | None, cache: Path) -> Path:
    """Write what was found beside the data, or into ``cache`` where that cannot be written to.

    Returns:
        The file written; a file of an earlier check is replaced in one step.

    Raises:
        OSError: the cache cannot be written to either.
    """
    name = file_name(found.dataset, found.digest)
    text = json.dumps(plain(found), indent=1) + "\n"
    if data is not None:
        try:
            return _replace(data / name, text)
        except OSError:  # a read-only folder, which is as data should be kept
            pass
    return _replace(cache / "coverage" / name, text)


def _replace(file: Path, text: str) -> Path:
    with atomic_write(file) as part:
        part.write_text(text, encoding="utf-8")
    return file
