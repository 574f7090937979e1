"""Records and predictions on disk: one JSON file per run and one archive of its predictions.

    root/records/<identity>/<method>/<run_id>.json   the commit point of a run
    root/records/<identity>/<method>/<run_id>.npz    logits, targets, keys and label names of the
                                                     test split; the same of the validation split
                                                     (validation_*), if any; and the influence of
                                                     each image on mAP (influence*)
    root/records/<identity>/<method>/superseded/     both files of runs that were repeated since
    root/costs/<device>/<model>.json                 how fast a model is; measured again, replaced
    root/runs/<run_id>/                              logs and checkpoints

Files are written atomically (see ``mlbench.files``): a reader never finds half of one.
"""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count as numbers_from
from pathlib import Path

from mlbench.evidence import (
    RESTORE,
    open_arrays,
    pack,
    read_cost,
    read_predictions,
    read_record,
    record_digest,
    seal,
    stored_influence,
    to_json,
)
from mlbench.files import rescue, safe_name, shelter, write_together
from mlbench.metrics.paired import Influence, derive_influence
from mlbench.text import shorten
from mlbench.types import MeasureError, ModelCost, Predictions, RunRecord, RunSpec, StoreError

SUPERSEDED = "superseded"
"""The folder of superseded records, next to the newest records of a method."""
TOLERANCE = 1e-3
"""Largest difference, in percent, between a record's mAP and that of its predictions."""


class Store:
    """The results under the folder ``root``. Opening creates nothing; the first ``write`` does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "records"

    # ------------------------------------------------------------------------------------ writing
    def write(self, record: RunRecord, predictions: Predictions | None = None) -> Path:
        """Write a run; returns the record's file.

        Both files are on disk before either gets its name, the record last, which is sealed here
        (see ``mlbench.evidence``). A different record of the same run is superseded: it and its
        predictions move to ``superseded/<run_id>.<started>.*``, with a number after ``started`` if
        that name is taken.

        Raises:
            StoreError: the files cannot be written (the message names the folder where the result
                was saved instead), or the predictions do not fit the record.
        """
        place = self.file(record)
        archive = None if predictions is None else pack(predictions, record)
        record = seal(record, archive)
        contents = [(place, to_json(record))]
        if archive is not None:
            contents.insert(0, (place.with_suffix(".npz"), archive))
        try:
            contents = [*_to_supersede(place, record), *contents]
            write_together(contents)
            if predictions is None:
                place.with_suffix(".npz").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(rescue(contents, self.root, place.stem, error)) from error
        return place

    def sweep_rescued(self) -> None:
        """Delete results that could not be written (see ``write``) and are here now, or newer."""
        pattern = shelter(self.root, "*")
        for folder in pattern.parent.glob(pattern.name):
            kept = [file for file in folder.rglob("*") if file.is_file()]
            pairs = [(file, self.root / file.relative_to(folder)) for file in kept]
            with suppress(OSError):
                if kept and all(here.stat().st_mtime >= f.stat().st_mtime for f, here in pairs):
                    shutil.rmtree(folder)

    def prune(self, record: RunRecord) -> None:
        """Keep one of the models that a record's competes with: that of the highest mAP.

        They are the models of one method and backbone, trained under one track on the same data,
        from the same start, by code of the same numbers. Of equal ones the lowest run id is kept.
        """

        def contest(one: RunRecord) -> tuple[object, ...]:
            spec = one.spec
            place = spec.data, spec.track, spec.init, spec.settings.backbone, one.tier
            return *place, one.numbers["core"]

        found = _records(map(_try_read, self.file(record).parent.glob("*.json")))
        rivals = [
            (-one.scores.mAP, one.run_id, self.root / one.checkpoint)
            for one in found
            if one.scores and one.checkpoint and contest(one) == contest(record)
        ]
        for _, _, checkpoint in sorted(one for one in rivals if one[-1].exists())[1:]:
            with suppress(OSError):
                checkpoint.unlink()

    def write_cost(self, cost: ModelCost) -> Path:
        """Write how fast a model is, in place of what was measured before; returns the file.

        Raises:
            StoreError: it cannot be written.
        """
        where = f"{cost.network.name}-{cost.precision}-{cost.runtime}"
        file = self.root / "costs" / safe_name(cost.device) / f"{safe_name(where)}.json"
        sealed = cost.model_copy(update={"digest": record_digest(to_json(cost))})
        try:
            write_together([(file, to_json(sealed))])
        except OSError as error:
            raise StoreError(f"{file} cannot be written ({error.strerror or error})") from error
        return file

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

    def read_costs(self) -> tuple[list[ModelCost], list[StoreError]]:
        """Every measurement, and one error for each file that should be one and is not."""
        costs, errors = [], []
        for file in sorted(self.root.glob("costs/*/*.json")):
            try:
                costs.append(read_cost(file))
            except StoreError as error:
                errors.append(error)
        return costs, errors

    def record_of(self, spec: RunSpec) -> RunRecord | None:
        """The newest record of a run, found without listing those of others; None without one.

        Raises:
            StoreError: it is damaged.
        """
        name = f"{safe_name(spec.method)}/{safe_name(spec.run_id)}.json"
        return next(map(_read, self._folder.glob(f"*/{name}")), None)

    def record_files(self) -> dict[str, Path]:
        """Run id -> file of its newest record, whether or not it can be read."""
        return {file.stem: file for file in self._files()}

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
            StoreError: the file is missing, damaged, or does not belong to the record.
        """
        file = self.predictions_file(record)
        with open_arrays(file, record) as arrays:
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
        missing or has another version. None if the run has no score, no predictions, or none that
        give its score.

        Raises:
            StoreError: the predictions are damaged, or do not belong to the record.
        """
        file = self.predictions_file(record)
        if record.scores is None or not file.exists():
            return None
        with open_arrays(file, record) as arrays:
            found = stored_influence(arrays)
        if found is None:
            try:
                found = derive_influence(self.predictions(record), record.label_names)
            except MeasureError:
                return None
        fits = abs(found.mAP - record.scores.mAP) < TOLERANCE
        return found if fits and len(found.values) == record.test_images else None

    def influences(
        self, records: Iterable[RunRecord]
    ) -> tuple[dict[str, Influence | None], list[StoreError]]:
        """Run id -> ``influence`` of each record; an error for each whose predictions are bad."""
        found: dict[str, Influence | None] = {}
        problems = []
        for record in records:
            try:
                found[record.run_id] = self.influence(record)
            except StoreError as error:
                problems.append(error)
        return found, problems

    def _files(self, stem: str = "*") -> list[Path]:
        return sorted(self._folder.glob(f"*/*/{stem}.json"))


# ----------------------------------------------------------------------------------------- records
def _read(file: Path) -> RunRecord:
    """Read the record in a file.

    Raises:
        StoreError: the file cannot be read, is not a record, or belongs under another name.
    """
    try:
        record = read_record(file.read_bytes(), file)
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror}); {RESTORE}") from error
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
    if target.exists():  # an earlier attempt kept both files; those at `place` may be half new
        return []
    files = [(target, place.read_bytes())]
    with suppress(FileNotFoundError):
        predictions = place.with_suffix(".npz").read_bytes()
        files.insert(0, (target.with_suffix(".npz"), predictions))
    return files


def _superseded_names(place: Path, started: str) -> Iterator[Path]:
    """Existing files of superseded records of this start time, then the first free name."""
    name = safe_name(f"{place.stem}.{started}")
    for number in numbers_from(1):
        file = place.parent / SUPERSEDED / f"{name}{f'.{number}' if number > 1 else ''}.json"
        yield file
        if not file.exists():
            return
