"""The results under one folder."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlbench.files import safe_name
from mlbench.store import archive
from mlbench.store.files import rescue, sweep, write_together
from mlbench.store.influence import VERSION, Influence, among, derive
from mlbench.store.records import (
    SUPERSEDED,
    attempt,
    current_file,
    of_their_data,
    read,
    superseded_by,
)
from mlbench.text import shorten
from mlbench.types import MeasureError, Predictions, RunRecord, StoreError

TOLERANCE = 1e-3
"""Percent that predictions may be off the record's mAP; what is beyond belongs to another run."""


class Store:
    """The results under one folder. Opening makes nothing; the first ``write`` does.

    Args:
        root: the folder, as given by ``--results``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "records"
        sweep([*self._folder.glob("*/*/.*.tmp"), *self._folder.glob(f"*/*/{SUPERSEDED}/.*.tmp")])

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
            contents.insert(0, (place.with_suffix(".npz"), archive.pack(predictions, record)))
        try:
            contents = [*superseded_by(place, record), *contents]
            write_together(contents)
            if predictions is None:
                place.with_suffix(".npz").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(rescue(contents, self.root, place.stem, error)) from error
        return place

    def file(self, record: RunRecord) -> Path:
        """Where the newest record of a run stands."""
        folder = self._folder / safe_name(record.identity) / safe_name(record.spec.method)
        return folder / f"{safe_name(record.run_id)}.json"

    def predictions_file(self, record: RunRecord) -> Path:
        """Where the predictions of a record would stand, be it superseded or not."""
        return current_file(self.file(record), record).with_suffix(".npz")

    def run_folder(self, run_id: str) -> Path:
        """Where a run leaves its logs and checkpoints; it may not exist yet."""
        return self.root / "runs" / safe_name(run_id)

    # ------------------------------------------------------------------------------------ reading
    def read_all(self) -> tuple[list[RunRecord], list[StoreError]]:
        """``records`` and ``problems`` in one pass."""
        found = self._newest()
        problems = [*found, *map(attempt, self._old_files())]
        return _records(found), [one for one in problems if isinstance(one, StoreError)]

    def records(self) -> list[RunRecord]:
        """Every record that can be read, in the order of their files' names."""
        return _records(self._newest())

    def problems(self) -> list[StoreError]:
        """One error a file that should be a record and is not; it hides no other."""
        return self.read_all()[1]

    def superseded(self) -> list[RunRecord]:
        """Every record that a newer one of the same run took the place of; see ``problems``."""
        return _records(map(attempt, self._old_files()))

    def get(self, run_id: str) -> RunRecord | None:
        """The record of a run, None where there is none.

        Raises:
            StoreError: there is one, but it is damaged.
        """
        for file in sorted(self._files(glob.escape(safe_name(run_id)))):
            return read(file)
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
            raise StoreError(
                f"{text!r} is the beginning of {len(files)} runs: {shorten(list(files))}; give more"
            )
        return read(files.get(begun, next(iter(files.values()))))

    def predictions(self, record: RunRecord) -> Predictions:
        """Logits, targets and keys of a run's test split, and of the validation split it may have.

        Raises:
            StoreError: the file is missing, damaged, or belongs to other labels.
        """
        file = self.predictions_file(record)
        with archive.opened(file, record) as arrays:
            names, predictions = tuple(arrays["names"].tolist()), archive.unpack(arrays)
        if names != record.label_names:
            raise StoreError(
                f"{file}: its {len(names)} labels are not the {len(record.label_names)} "
                "of the record beside it; restore the file that belongs to the record"
            )
        return predictions

    def influence(self, record: RunRecord) -> Influence | None:
        """What each test image does to a run's mAP.

        Read as ``write`` left it, and nothing else of the predictions with it; worked out of those
        where it is not there, of another version, or does not fit the record.

        Returns:
            None where a run has no predictions, or none that can be read and give its score.
        """
        if record.scores is None:
            return None
        try:
            with archive.opened(self.predictions_file(record), record) as arrays:
                found = among(arrays)
            if found is None or not _fits(found, record):
                found = derive(self.predictions(record), record.label_names)
        except (StoreError, MeasureError):
            return None
        return found if _fits(found, record) else None

    def _newest(self) -> list[RunRecord | StoreError]:
        return of_their_data({file: attempt(file) for file in sorted(self._files())})

    def _old_files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*/*/{SUPERSEDED}/*.json"))

    def _files(self, stem: str = "*") -> Iterator[Path]:
        return self._folder.glob(f"*/*/{stem}.json")


def _fits(found: Influence, record: RunRecord) -> bool:
    """Whether it is one that this mlbench reads, of the record's images and score."""
    if found.version != VERSION or found.values.shape != (record.test_images,):
        return False
    return record.scores is not None and abs(found.mAP - record.scores.mAP) < TOLERANCE


def _records(found: Iterable[RunRecord | StoreError]) -> list[RunRecord]:
    return [one for one in found if isinstance(one, RunRecord)]
