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

import re
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

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
from mlbench.files import rescue, safe_name, write_together
from mlbench.metrics.paired import Influence, derive_influence
from mlbench.text import shorten
from mlbench.types import MeasureError, ModelCost, Predictions, RunRecord, RunSpec, StoreError

SUPERSEDED = "superseded"
"""The folder of superseded records, next to the newest records of a method."""
Source = TypeVar("Source")
Found = TypeVar("Found")
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
        predictions move to ``superseded/<run_id>.<started>.<digest>.*``.

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

    def prune(self, record: RunRecord) -> None:
        """Delete the checkpoints of the record's group except the best by mAP.

        A group has one method and backbone on one board: the same data, track and start, and code
        of the same numbers. Of equal ones the lowest run id is kept.
        """

        def group(one: RunRecord) -> tuple[object, ...]:
            spec, saw = one.spec, one.pretraining.saw if one.pretraining else ()
            same_code = one.numbers | record.numbers == record.numbers | one.numbers  # if in both
            return spec.data, spec.track, spec.init, saw, spec.settings.backbone, same_code

        found, _ = _read_each(_read, self.file(record).parent.glob("*.json"))
        rivals = [
            (-one.scores.mAP, one.run_id, self.root / one.checkpoint)
            for one in found
            if one.scores and one.checkpoint and group(one) == group(record)
        ]
        for _, _, checkpoint in sorted(one for one in rivals if one[-1].exists())[1:]:
            with suppress(OSError):
                checkpoint.unlink()

    def assert_writable(self) -> None:
        """Raise ``StoreError`` if nothing can be written, before work whose result were lost."""
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / "runs") as probe:
                probe.write(bytes(65_536))  # a full disk still takes empty files
        except OSError as error:
            raise StoreError(
                f"{self.root} cannot be written ({error.strerror}); free space, grant write "
                "permission, or name another folder with --results"
            ) from error

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
        for old in newest.parent.glob(f"{SUPERSEDED}/{newest.stem}.*.json"):
            if any(one.digest == record.digest for one in _read_each(_read, [old])[0]):
                return old.with_suffix(".npz")
        return newest.with_suffix(".npz")

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run's logs and checkpoints; it may not exist yet."""
        return self.root / "runs" / safe_name(run_id)

    # ------------------------------------------------------------------------------------ reading
    def read_all(self) -> tuple[list[RunRecord], list[StoreError]]:
        """``records()``, and one error for each file that should be a record and is not."""
        newest, errors = _read_each(_read, self._files())
        _, more = _read_each(_read, self._files(f"{SUPERSEDED}/*"))
        return newest, [*errors, *more]

    def records(self) -> list[RunRecord]:
        """The newest record of every run, sorted by file name; unreadable files are skipped."""
        return _read_each(_read, self._files())[0]

    def superseded(self) -> list[RunRecord]:
        """Every superseded record; unreadable files are skipped."""
        return _read_each(_read, self._files(f"{SUPERSEDED}/*"))[0]

    def read_costs(self) -> tuple[list[ModelCost], list[StoreError]]:
        """Every measurement, and one error for each file that should be one and is not."""
        return _read_each(read_cost, sorted(self.root.glob("costs/*/*.json")))

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
        """The run of an id, of its beginning, or of a run's folder; None if there is none.

        Raises:
            StoreError: several ids begin with ``text``, or the record is damaged.
        """
        prefix = safe_name(Path(text).name)
        files = {file.stem: file for file in self._files(f"{prefix}*")}
        if not files:
            return None
        if len(files) > 1:
            raise StoreError(
                f"{text!r} is the beginning of {len(files)} runs: {shorten(list(files))}; give more"
            )
        return _read(*files.values())

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
        found, errors = _read_each(lambda one: (one.run_id, self.influence(one)), records)
        return dict(found), errors

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
    names = safe_name(record.run_id), safe_name(f"{record.run_id}.{record.started}")
    stem, _, digest = file.stem.rpartition(".")  # the digest's beginning, if it is superseded
    if file.stem not in names and not (stem == names[1] and re.fullmatch(r"[\da-f]+", digest)):
        raise StoreError(f"{file}: holds run {record.run_id}; give the file that name")
    return record


def _read_each(
    read: Callable[[Source], Found], sources: Iterable[Source]
) -> tuple[list[Found], list[StoreError]]:
    """What can be read, and one error for each that cannot."""
    found, errors = [], []
    for source in sources:
        try:
            found.append(read(source))
        except StoreError as error:
            errors.append(error)
    return found, errors


def _to_supersede(place: Path, record: RunRecord) -> list[tuple[Path, bytes]]:
    """The files of a different record at ``place``, under the names that they move to."""
    old = next(iter(_read_each(_read, [place])[0]), None)
    if old is None or old.digest == record.digest:
        return []
    name = f"{safe_name(f'{place.stem}.{old.started}')}.{old.digest[:8]}.json"
    target = place.parent / SUPERSEDED / name
    if target.exists():  # an earlier attempt kept both files; those at `place` may be half new
        return []
    files = [(target, place.read_bytes())]
    with suppress(FileNotFoundError):
        predictions = place.with_suffix(".npz").read_bytes()
        files.insert(0, (target.with_suffix(".npz"), predictions))
    return files
