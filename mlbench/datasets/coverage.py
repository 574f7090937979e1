"""Which edition of a data set is in hand, and which of its images can be used."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mlbench.data.coverage import coverage, files, parts
from mlbench.data.decode import MISSING, problems
from mlbench.types import SplitCoverage, Splits, Value


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
        known: whether it is a published edition, or one of ours.
        digest: of keys and targets of both splits (see ``mlbench.types.digest``); images do not
            enter it.
        usable: part of all images that can be used, from 0 to 1.
    """

    dataset: str
    identity: str
    known: bool
    digest: str
    usable: float
    splits: dict[str, SplitCoverage]
    bad: tuple[BadImage, ...]


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
        known=found.known,
        digest=splits.digest,
        usable=1 - len(bad) / max(1, images),
        splits=found.splits,
        bad=bad,
    )


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
    text = found.model_dump_json(indent=1) + "\n"
    if data is not None:
        try:
            return _replace(data / name, text)
        except OSError:  # a read-only folder, which is as data should be kept
            pass
    folder = cache / "coverage"
    folder.mkdir(parents=True, exist_ok=True)
    return _replace(folder / name, text)


def _replace(file: Path, text: str) -> Path:
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as opened:
        temporary = Path(opened.name)
        opened.write(text)
    try:
        temporary.chmod(0o644)
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return file
