"""Records and predictions on disk: one JSON a run, written once, and beside it what it predicted.

    root/records/<identity>/<method>/<run_id>.json   the commit point of a run
    root/records/<identity>/<method>/<run_id>.npz    logits, targets, keys and label names; and
                                                     as validation_* those of that split, if any
    root/runs/<run_id>/                              logs and checkpoints

A file appears under its name only when it is whole: it is written under another name in the same
folder, flushed to the disk and renamed. A run that was killed leaves such a file at most, and the
next store that is opened sweeps it away.
"""

from __future__ import annotations

import glob
import hashlib
import io
import itertools
import os
import platform
import re
import shlex
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mlbench.types import Predictions, RunRecord, StoreError

HELD_OUT = "validation_"
"""What the names of the validation split's arrays begin with."""
SUPERSEDED = "superseded"
"""The folder, beside the newest records of a method, of those that they took the place of."""


class Store:
    """The results under one folder. Opening makes nothing; the first ``write`` does.

    Args:
        root: the folder, as given by ``--results``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        _sweep(root / "records")

    # ------------------------------------------------------------------------------------ writing
    def write(self, record: RunRecord, predictions: Predictions | None = None) -> Path:
        """Keep a run: both files are on the disk before either gets its name, the record last.

        Args:
            record: what the run found. Another record of the same run is superseded: it and its
                predictions move to ``superseded/<run_id>.<started>.*``, with a number behind
                ``started`` where a third one has that name.
            predictions: on the test split; None for a run that has none.

        Returns:
            The record's file.

        Raises:
            StoreError: naming the file, the reason, and the folder where the result was saved
                instead; or the predictions do not fit the record.
        """
        place = self.file(record)
        contents = [(place, (record.model_dump_json(indent=1) + "\n").encode())]
        if predictions is not None:
            contents.insert(0, (place.with_suffix(".npz"), _pack(predictions, record)))
        try:
            contents = [*_superseded_by(place, record), *contents]
            _write_together(contents)
            if predictions is None:
                place.with_suffix(".npz").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(self._rescue(contents, place, error)) from error
        return place

    def file(self, record: RunRecord) -> Path:
        """Where the newest record of a run stands."""
        folder = self.root / "records" / safe_name(record.identity) / safe_name(record.spec.method)
        return folder / f"{safe_name(record.run_id)}.json"

    def _rescue(self, contents: list[tuple[Path, bytes]], place: Path, error: OSError) -> str:
        """Save the result of hours somewhere else, and say where."""
        said = (
            f"{error.filename or place}: the result of run {place.stem} could not be written "
            f"({error.strerror or error})"
        )
        try:
            shelter = Path(tempfile.mkdtemp(prefix=f"mlbench-rescue-{place.stem}-"))
            _write_together([(shelter / f.relative_to(self.root), data) for f, data in contents])
        except OSError as second:
            return (
                f"{said}, nor could it be saved under {tempfile.gettempdir()} "
                f"({second.strerror or second}): it is lost. Make room or give write permission, "
                "then run the same command again; it repeats only this run"
            )
        return (
            f"{said}. It was saved in {shelter} instead. Make room in {self.root} or give write "
            f"permission, then put it back with: cp -r {shlex.quote(f'{shelter}/records')} "
            f"{shlex.quote(str(self.root))}/"
        )

    def run_folder(self, run_id: str) -> Path:
        """Where a run leaves its logs and checkpoints; it may not exist yet."""
        return self.root / "runs" / safe_name(run_id)

    # ------------------------------------------------------------------------------------ reading
    def records(self) -> list[RunRecord]:
        """Every record that can be read, in the order of their files' names."""
        return [found for found in self._read_all() if isinstance(found, RunRecord)]

    def problems(self) -> list[StoreError]:
        """One error a file that should be a record and is not; it hides no other."""
        found = [*self._read_all(), *map(_try, self._old_files())]
        return [problem for problem in found if isinstance(problem, StoreError)]

    def get(self, run_id: str) -> RunRecord | None:
        """The record of a run, None where there is none.

        Raises:
            StoreError: there is one, but it is damaged.
        """
        for file in sorted(self._files(glob.escape(safe_name(run_id)))):
            return _read(file)
        return None

    def find(self, text: str) -> RunRecord | None:
        """The one run whose id this is, or begins with; None where no id does.

        Raises:
            StoreError: several ids begin so, or the record is damaged.
        """
        begun = safe_name(text)
        files = {file.stem: file for file in sorted(self._files(f"{glob.escape(begun)}*"))}
        if not text or not files:
            return None
        if len(files) > 1 and begun not in files:
            ids, more = list(files)[:5], f" and {len(files) - 5} more" if len(files) > 5 else ""
            raise StoreError(
                f"{text!r} is the beginning of {len(files)} runs: {', '.join(ids)}{more}; give more"
            )
        return _read(files.get(begun, next(iter(files.values()))))

    def superseded(self) -> list[RunRecord]:
        """Every record that a newer one of the same run took the place of; see ``problems``."""
        return [found for found in map(_try, self._old_files()) if isinstance(found, RunRecord)]

    def fingerprint(self, record: RunRecord) -> str | None:
        """What a run's predictions are, by lengths and checksums in the archive; reads no array.

        For caches only: to files that were made to have equal CRC-32 it is blind.

        Returns:
            32 hex digits; None where there is no file, or none that is an archive.
        """
        try:
            with zipfile.ZipFile(self._file_of(record)) as archive:
                members = sorted((m.filename, m.CRC, m.file_size) for m in archive.infolist())
        except (OSError, zipfile.BadZipFile):
            return None
        return hashlib.sha256(repr(members).encode()).hexdigest()[:32]

    def predictions(self, record: RunRecord) -> Predictions:
        """Logits, targets and keys of a run's test split, and of the validation split it may have.

        Raises:
            StoreError: the file is missing, damaged, or belongs to other labels.
        """
        file = self._file_of(record)
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                names = tuple(arrays["names"].tolist())
                predictions = _unpack(arrays)
                if f"{HELD_OUT}keys" in arrays:
                    predictions = replace(predictions, validation=_unpack(arrays, HELD_OUT))
        except FileNotFoundError as error:
            raise StoreError(
                f"{file}: run {record.run_id} ({record.status}) has no predictions; "
                "delete its record and run it again to get them"
            ) from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise StoreError(
                f"{file}: damaged predictions ({type(error).__name__}: {error}); "
                "restore the file, or delete it and its record and run again"
            ) from error
        if names != record.label_names:
            raise StoreError(
                f"{file}: its {len(names)} labels are not the {len(record.label_names)} "
                "of the record beside it; restore the file that belongs to the record"
            )
        return predictions

    def _file_of(self, record: RunRecord) -> Path:
        """The predictions of a record, be it superseded or not."""
        place = self.file(record)
        old = [file for file in _old_names(place, record.started) if file.exists()]
        if old and not _holds(place, record):
            place = next((file for file in old if _holds(file, record)), place)
        return place.with_suffix(".npz")

    def _old_files(self) -> list[Path]:
        return sorted((self.root / "records").glob(f"*/*/{SUPERSEDED}/*.json"))

    def _files(self, stem: str = "*") -> Iterator[Path]:
        return (self.root / "records").glob(f"*/*/{stem}.json")

    def _read_all(self) -> Iterator[RunRecord | StoreError]:
        yield from map(_try, sorted(self._files()))


def safe_name(name: str) -> str:
    """A file name for any text: ``timm:resnet26`` -> ``timm%3Aresnet26``. No two share one."""
    quoted = quote(name, safe=" +,=@")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted or "%"


def _try(file: Path) -> RunRecord | StoreError:
    try:
        return _read(file)
    except StoreError as error:
        return error


def _read(file: Path) -> RunRecord:
    remedy = "restore the file, or delete it and run again"
    try:
        record = RunRecord.model_validate_json(file.read_bytes())
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise StoreError(
            f"{file}: not a record of this mlbench ({where}: {first['msg']}); {remedy}"
        ) from error
    old = re.escape(safe_name(f"{record.run_id}.{record.started}"))
    if file.stem != safe_name(record.run_id) and not re.fullmatch(rf"{old}(\.\d+)?", file.stem):
        raise StoreError(f"{file}: holds run {record.run_id}; give the file that name")
    return record


def _old_names(place: Path, started: str) -> Iterator[Path]:
    """Files of superseded records of a run that began then, and a free name after them."""
    name = safe_name(f"{place.stem}.{started}")
    for number in itertools.count(1):
        file = place.parent / SUPERSEDED / f"{name}{f'.{number}' if number > 1 else ''}.json"
        yield file
        if not file.exists():
            return


def _holds(file: Path, record: RunRecord) -> bool:
    """Whether this record stands there; as JSON, since a NaN is no equal of itself."""
    found = _try(file) if file.exists() else None
    return isinstance(found, RunRecord) and found.model_dump_json() == record.model_dump_json()


def _superseded_by(place: Path, record: RunRecord) -> list[tuple[Path, bytes]]:
    """The files of another record at the place of a new one, under the names that keep them."""
    old = _try(place) if place.exists() else None
    if not isinstance(old, RunRecord) or _holds(place, record):
        return []
    names = _old_names(place, old.started)
    kept_as = next(file for file in names if _holds(file, old) or not file.exists())
    kept = [(kept_as, place.read_bytes())]
    with suppress(FileNotFoundError):
        predictions = place.with_suffix(".npz").read_bytes()
        kept.insert(0, (kept[0][0].with_suffix(".npz"), predictions))
    return kept


def _pack(predictions: Predictions, record: RunRecord) -> bytes:
    arrays = _arrays(predictions, record)
    arrays["names"] = np.array(record.label_names, dtype=np.str_)
    if predictions.validation is not None:
        arrays |= _arrays(predictions.validation, record, HELD_OUT)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(
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


def _unpack(arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> Predictions:
    logits, targets, keys = (arrays[f"{prefix}{name}"] for name in ("logits", "targets", "keys"))
    return Predictions(logits, targets, tuple(keys.tolist()))


# ------------------------------------------------------------------------------------- whole files
def _write_together(contents: Sequence[tuple[Path, bytes]]) -> None:
    """Put all files on the disk, then give them their names in this order."""
    staged = [(_temporary(file), file) for file, _ in contents]
    try:
        for (temporary, file), (_, data) in zip(staged, contents, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for temporary, file in staged:
            temporary.replace(file)
    finally:
        for temporary, _ in staged:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _temporary(file: Path) -> Path:
    return file.with_name(f".{file.name}.{safe_name(platform.node())}-{os.getpid()}.tmp")


def _sweep(folder: Path) -> None:
    for file in (*folder.glob("*/*/.*.tmp"), *folder.glob(f"*/*/{SUPERSEDED}/.*.tmp")):
        with suppress(OSError):  # another process was quicker, or the store is read-only
            if _abandoned(file):
                file.unlink()


def _abandoned(file: Path) -> bool:
    """Its writer was of this machine and is dead, or it is a day old: nothing takes that long."""
    head, _, process = file.name.removesuffix(".tmp").rpartition("-")
    if head.endswith(f".{safe_name(platform.node())}") and process.isdigit() and os.name == "posix":
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    return time.time() - file.stat().st_mtime > 24 * 3600
