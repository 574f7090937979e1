"""Records and predictions on disk: one JSON a run, written once, and beside it what it predicted.

    root/records/<identity>/<method>/<run_id>.json   the commit point of a run
    root/records/<identity>/<method>/<run_id>.npz    logits, targets, keys and label names
    root/runs/<run_id>/                              logs and checkpoints

A file appears under its name only when it is whole: it is written under another name in the same
folder, flushed to the disk and renamed. A run that was killed leaves such a file at most, and the
next store that is opened sweeps it away.
"""

from __future__ import annotations

import glob
import io
import os
import platform
import shlex
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
from pydantic import ValidationError

from mlbench.types import Predictions, RunRecord, StoreError


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
            record: what the run found; a record of the same run id is replaced.
            predictions: on the test split; None for a run that has none.

        Returns:
            The record's file.

        Raises:
            StoreError: naming the file, the reason, and the folder where the result was saved
                instead; or the predictions do not fit the record.
        """
        place = self._place(record)
        contents = [(place, (record.model_dump_json(indent=1) + "\n").encode())]
        if predictions is not None:
            contents.insert(0, (place.with_suffix(".npz"), _pack(predictions, record)))
        try:
            _write_together(contents)
            if predictions is None:
                place.with_suffix(".npz").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(self._rescue(contents, place, error)) from error
        return place

    def _place(self, record: RunRecord) -> Path:
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
        return [found for found in self._read_all() if isinstance(found, StoreError)]

    def get(self, run_id: str) -> RunRecord | None:
        """The record of a run, None where there is none.

        Raises:
            StoreError: there is one, but it is damaged.
        """
        for file in sorted(self._files(glob.escape(safe_name(run_id)))):
            return _read(file)
        return None

    def predictions(self, record: RunRecord) -> Predictions:
        """Logits, targets and keys of a run's test split.

        Raises:
            StoreError: the file is missing, damaged, or belongs to other labels.
        """
        file = self._place(record).with_suffix(".npz")
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("logits", "targets", "keys", "names")}
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
        if tuple(found["names"]) != record.label_names:
            raise StoreError(
                f"{file}: its {len(found['names'])} labels are not the {len(record.label_names)} "
                "of the record beside it; restore the file that belongs to the record"
            )
        return Predictions(found["logits"], found["targets"], tuple(found["keys"].tolist()))

    def _files(self, stem: str = "*") -> Iterator[Path]:
        return (self.root / "records").glob(f"*/*/{stem}.json")

    def _read_all(self) -> Iterator[RunRecord | StoreError]:
        for file in sorted(self._files()):
            try:
                yield _read(file)
            except StoreError as error:
                yield error


def safe_name(name: str) -> str:
    """A file name for any text: ``timm:resnet26`` -> ``timm%3Aresnet26``. No two share one."""
    quoted = quote(name, safe=" +,=@")
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted or "%"


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
    if safe_name(record.run_id) != file.stem:
        raise StoreError(f"{file}: holds run {record.run_id}; give the file that name")
    return record


def _pack(predictions: Predictions, record: RunRecord) -> bytes:
    n, c = len(predictions.keys), len(record.label_names)
    if predictions.logits.shape != (n, c) or predictions.targets.shape != (n, c):
        raise StoreError(
            f"predictions of run {record.run_id}: logits {predictions.logits.shape} and targets "
            f"{predictions.targets.shape} must be [{n} keys, {c} labels]"
        )
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        logits=predictions.logits.astype(np.float32, copy=False),
        targets=predictions.targets.astype(np.int8, copy=False),
        keys=np.array(predictions.keys, dtype=np.str_),
        names=np.array(record.label_names, dtype=np.str_),
    )
    return buffer.getvalue()


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
    for file in folder.glob("*/*/.*.tmp"):
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
