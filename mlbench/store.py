"""Records and predictions on disk: one JSON file per run and one archive of its predictions.

    root/records/<identity>/<method>/<run_id>.json   the commit point of a run
    root/records/<identity>/<method>/<run_id>.npz    logits, targets, keys and label names of the
                                                     test split; the same of the validation split
                                                     (validation_*), if any; and the influence of
                                                     each image on mAP (influence*)
    root/records/<identity>/<method>/superseded/     both files of runs that were repeated since
    root/runs/<run_id>/                              logs and checkpoints

Files are written atomically (see ``mlbench.files``): a reader never finds half of one.
"""

from __future__ import annotations

import glob
import io
import os
import re
import shlex
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mlbench.files import safe_name, write_together
from mlbench.metrics.paired import Influence, derive_influence
from mlbench.text import first_error, shorten
from mlbench.types import MeasureError, Predictions, RunRecord, StoreError

Arrays = Mapping[str, NDArray[Any]]

SUPERSEDED = "superseded"
"""The folder of superseded records, next to the newest records of a method."""
VALIDATION = "validation_"
"""Prefix of the validation split's arrays in an archive."""
INFLUENCE_VERSION = 1
"""Raised when equal predictions give other influences, so that stored ones are not read."""
TOLERANCE = 1e-3
"""Largest difference, in percent, between a record's mAP and that of its predictions."""


class Store:
    """The results under one folder. Opening creates nothing; the first ``write`` does.

    Args:
        root: the folder, as given by ``--results``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "records"

    # ------------------------------------------------------------------------------------ writing
    def write(self, record: RunRecord, predictions: Predictions | None = None) -> Path:
        """Write a run. Both files are on disk before either gets its name, the record last.

        Args:
            record: of the run. A different record of the same run is superseded: it and its
                predictions move to ``superseded/<run_id>.<started>.*``, with a number after
                ``started`` if that name is taken.
            predictions: on the test split; None for a run without any.

        Returns:
            The record's file.

        Raises:
            StoreError: the files cannot be written (the message names the folder where the result
                was saved instead), or the predictions do not fit the record.
        """
        place = self.file(record)
        contents = [(place, (record.model_dump_json(indent=1) + "\n").encode())]
        if predictions is not None:
            contents.insert(0, (place.with_suffix(".npz"), _pack(predictions, record)))
        try:
            contents = [*_to_supersede(place, record), *contents]
            write_together(contents)
            if predictions is None:
                place.with_suffix(".npz").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(_rescue(contents, self.root, place.stem, error)) from error
        return place

    def file(self, record: RunRecord) -> Path:
        """The file of the newest record of a run."""
        folder = self._folder / safe_name(record.identity) / safe_name(record.spec.method)
        return folder / f"{safe_name(record.run_id)}.json"

    def predictions_file(self, record: RunRecord) -> Path:
        """The file of a record's predictions, superseded or not; it may not exist."""
        newest = self.file(record)
        files = [newest, *filter(Path.exists, _superseded_names(newest, record.started))]
        if len(files) > 1:
            newest = next((file for file in files if _contains(file, record)), newest)
        return newest.with_suffix(".npz")

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run's logs and checkpoints; it may not exist yet."""
        return self.root / "runs" / safe_name(run_id)

    # ------------------------------------------------------------------------------------ reading
    def read_all(self) -> tuple[list[RunRecord], list[StoreError]]:
        """``records()``, and one error for each file that should be a record and is not."""
        newest = [_try_read(file) for file in self._files()]
        found = [*newest, *map(_try_read, self._files(f"{SUPERSEDED}/*"))]
        return _records(newest), [one for one in found if isinstance(one, StoreError)]

    def records(self) -> list[RunRecord]:
        """The newest record of every run, sorted by file name; unreadable files are skipped."""
        return _records(map(_try_read, self._files()))

    def superseded(self) -> list[RunRecord]:
        """Every superseded record; unreadable files are skipped."""
        return _records(map(_try_read, self._files(f"{SUPERSEDED}/*")))

    def find(self, text: str) -> RunRecord | None:
        """The run whose id is ``text`` or the only one whose id begins with it; None if none does.

        Raises:
            StoreError: several ids begin with ``text``, or the record is damaged.
        """
        prefix = safe_name(text)
        files = {file.stem: file for file in self._files(f"{glob.escape(prefix)}*")}
        if not text or not files:
            return None
        if len(files) > 1 and prefix not in files:
            raise StoreError(
                f"{text!r} is the beginning of {len(files)} runs: {shorten(list(files))}; give more"
            )
        return _read(files.get(prefix, next(iter(files.values()))))

    def predictions(self, record: RunRecord) -> Predictions:
        """Logits, targets and keys of a run's test split, and of its validation split if any.

        Raises:
            StoreError: the file is missing, damaged, or belongs to other labels.
        """
        file = self.predictions_file(record)
        with open_arrays(file) as arrays:
            names, predictions = tuple(arrays["names"].tolist()), read_predictions(arrays)
        if names != record.label_names:
            raise StoreError(
                f"{file}: its {len(names)} labels are not the {len(record.label_names)} "
                "of the record beside it; restore the file that belongs to the record"
            )
        return predictions

    def influence(self, record: RunRecord) -> Influence | None:
        """The influence of each test image on a run's mAP.

        Read from the archive without the rest of the predictions; derived from them if it is
        missing, has another version, or does not fit the record.

        Returns:
            None if the run has no readable predictions that give its score.
        """
        if (scores := record.scores) is None:
            return None

        def fits(found: Influence) -> bool:
            right_size = found.values.shape == (record.test_images,)
            return right_size and abs(found.mAP - scores.mAP) < TOLERANCE

        try:
            with open_arrays(self.predictions_file(record)) as arrays:
                found = _stored_influence(arrays)
            if found is None or not fits(found):
                found = derive_influence(self.predictions(record), record.label_names)
        except (StoreError, MeasureError):
            return None
        return found if fits(found) else None

    def _files(self, stem: str = "*") -> list[Path]:
        return sorted(self._folder.glob(f"*/*/{stem}.json"))


# ---------------------------------------------------------------------------------------- archives
def _stored_influence(arrays: Arrays) -> Influence | None:
    """The influence in an archive; None if it has none of this version."""
    if "influence" not in arrays or arrays["influence_version"] != INFLUENCE_VERSION:
        return None
    of, values, score = (arrays[f"influence{end}"] for end in ("_of", "", "_mAP"))
    return Influence(str(of), values, float(score))


_DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


@contextmanager
def open_arrays(file: Path) -> Iterator[Any]:
    """Open an archive of predictions as numpy's ``NpzFile``, which reads arrays on demand.

    The system's read-ahead is switched off: a board of 2,000 COCO runs would otherwise read 8 GB
    for the 0.5 GB that it needs.

    Raises:
        StoreError: the file is missing or damaged, even if only the block finds out.
    """
    try:
        with file.open("rb", buffering=1 << 18) as stream:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            with np.load(stream, allow_pickle=False) as arrays:
                yield arrays
    except FileNotFoundError as error:
        raise StoreError(
            f"{file}: run {file.stem} has no predictions; "
            "delete its record and run it again to get them"
        ) from error
    except _DAMAGE as error:
        raise StoreError(
            f"{file}: damaged predictions ({type(error).__name__}); restore the file, or "
            "delete it and its record and run again"
        ) from error


def prediction_arrays(predictions: Predictions, record: RunRecord) -> dict[str, NDArray[Any]]:
    """The arrays of an archive: those of each split, and the label names.

    Raises:
        StoreError: the predictions do not fit the record.
    """
    arrays = _split_arrays(predictions, record)
    arrays["names"] = np.array(record.label_names, dtype=np.str_)
    if predictions.validation is not None:
        arrays |= _split_arrays(predictions.validation, record, VALIDATION)
    return arrays


def read_predictions(arrays: Arrays, prefix: str = "") -> Predictions:
    """The predictions of both splits; the inverse of ``prediction_arrays``."""
    logits, targets, keys = (arrays[f"{prefix}{name}"] for name in ("logits", "targets", "keys"))
    both = not prefix and f"{VALIDATION}keys" in arrays
    validation = read_predictions(arrays, VALIDATION) if both else None
    return Predictions(logits, targets, tuple(keys.tolist()), validation)


def _pack(predictions: Predictions, record: RunRecord) -> bytes:
    """The archive of a run's predictions and their influence."""
    arrays = prediction_arrays(predictions, record)
    if record.scores is not None:
        with suppress(MeasureError):  # predictions are kept even if they cannot be scored
            found = derive_influence(predictions, record.label_names)
            arrays |= {
                "influence": found.values.astype("<f4", copy=False),
                "influence_of": np.array(found.images),
                "influence_mAP": np.array(found.mAP, "<f8"),
                "influence_version": np.array(INFLUENCE_VERSION, "<i8"),
            }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _split_arrays(
    predictions: Predictions, record: RunRecord, prefix: str = ""
) -> dict[str, NDArray[Any]]:
    n, c = len(predictions.keys), len(record.label_names)
    if predictions.logits.shape != (n, c) or predictions.targets.shape != (n, c):
        raise StoreError(
            f"predictions of run {record.run_id}: {prefix}logits {predictions.logits.shape} and "
            f"targets {predictions.targets.shape} must be [{n} keys, {c} labels]"
        )
    return {
        f"{prefix}logits": predictions.logits.astype(np.float32, copy=False),
        f"{prefix}targets": predictions.targets.astype(np.int8, copy=False),
        f"{prefix}keys": np.array(predictions.keys, dtype=np.str_),
    }


# ----------------------------------------------------------------------------------------- records
def _read(file: Path) -> RunRecord:
    """Read the record in a file.

    Raises:
        StoreError: the file cannot be read, is not a record, or belongs under another name.
    """
    remedy = "restore the file, or delete it and run again"
    try:
        record = RunRecord.model_validate_json(file.read_bytes())
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error
    except ValidationError as error:
        raise StoreError(
            f"{file}: not a record of this mlbench ({first_error(error)}); {remedy}"
        ) from error
    old = re.escape(safe_name(f"{record.run_id}.{record.started}"))
    if file.stem != safe_name(record.run_id) and not re.fullmatch(rf"{old}(\.\d+)?", file.stem):
        raise StoreError(f"{file}: holds run {record.run_id}; give the file that name")
    return record


def _try_read(file: Path) -> RunRecord | StoreError:
    try:
        return _read(file)
    except StoreError as error:
        return error


def _records(found: Iterable[RunRecord | StoreError]) -> list[RunRecord]:
    return [one for one in found if isinstance(one, RunRecord)]


def _contains(file: Path, record: RunRecord) -> bool:
    """True if the file holds this record; compared as JSON, since NaN does not equal itself."""
    found = _try_read(file) if file.exists() else None
    return isinstance(found, RunRecord) and found.model_dump_json() == record.model_dump_json()


def _to_supersede(place: Path, record: RunRecord) -> list[tuple[Path, bytes]]:
    """The files of a different record at ``place``, under the names that they move to."""
    old = _try_read(place) if place.exists() else None
    if not isinstance(old, RunRecord) or _contains(place, record):
        return []
    names = _superseded_names(place, old.started)
    target = next(file for file in names if _contains(file, old) or not file.exists())
    files = [(target, place.read_bytes())]
    with suppress(FileNotFoundError):
        predictions = place.with_suffix(".npz").read_bytes()
        files.insert(0, (target.with_suffix(".npz"), predictions))
    return files


def _superseded_names(place: Path, started: str) -> Iterator[Path]:
    """Existing files of superseded records of this start time, then the first free name."""
    name = safe_name(f"{place.stem}.{started}")
    for number in count(1):
        file = place.parent / SUPERSEDED / f"{name}{f'.{number}' if number > 1 else ''}.json"
        yield file
        if not file.exists():
            return


# ------------------------------------------------------------------------------------------- files
def _rescue(contents: Sequence[tuple[Path, bytes]], root: Path, run_id: str, error: OSError) -> str:
    """Save a result that could not be written in a temporary folder; returns the message."""
    shelter = Path(tempfile.gettempdir()) / f"mlbench-rescue-{run_id}-{os.getpid()}"
    what = (
        f"{error.filename or contents[-1][0]}: the result of run {run_id} could not be written "
        f"({error.strerror or error})"
    )
    try:
        write_together([(shelter / file.relative_to(root), data) for file, data in contents])
    except OSError as second:
        return f"{what}, nor could it be saved in {shelter} ({second.strerror}); it is lost"
    return (
        f"{what}. It was saved in {shelter} instead. Make room in {root} or give write "
        f"permission, then put it back with: cp -r {shlex.quote(f'{shelter}/records')} "
        f"{shlex.quote(str(root))}/"
    )
