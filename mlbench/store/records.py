"""The files of records, and the names under which superseded ones are kept."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count, zip_longest
from pathlib import Path

from pydantic import ValidationError

from mlbench.files import safe_name
from mlbench.text import first_error
from mlbench.types import RunRecord, StoreError

SUPERSEDED = "superseded"
"""The folder, beside the newest records of a method, of those that they took the place of."""


def read(file: Path) -> RunRecord:
    """The record of a file.

    Raises:
        StoreError: it cannot be read, is no record, or one that has another name.
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


def attempt(file: Path) -> RunRecord | StoreError:
    """The record of a file, or what is wrong with it."""
    try:
        return read(file)
    except StoreError as error:
        return error


def of_their_data(found: Mapping[Path, RunRecord | StoreError]) -> list[RunRecord | StoreError]:
    """What was found, with an error for each record whose label names most of its data do not have.

    Data of one digest have their labels in one order, so that such a record was edited. Of equally
    many the earliest counts.
    """
    records = [one for one in found.values() if isinstance(one, RunRecord)]
    counts: dict[tuple[object, ...], Counter[tuple[str, ...]]] = defaultdict(Counter)
    for record in sorted(records, key=lambda record: record.appeared):
        counts[_data(record)][record.label_names] += 1
    return [_of_most(file, one, counts) for file, one in found.items()]


def _of_most(
    file: Path,
    one: RunRecord | StoreError,
    counts: Mapping[tuple[object, ...], Counter[tuple[str, ...]]],
) -> RunRecord | StoreError:
    if not isinstance(one, RunRecord):
        return one
    [(names, others)] = counts[_data(one)].most_common(1)
    if one.label_names == names:
        return one
    pairs = enumerate(zip_longest(names, one.label_names))
    column, (expected, said) = next((i, both) for i, both in pairs if both[0] != both[1])
    return StoreError(
        f"{file}: label_names has {said!r} in column {column}, and {expected!r} stands there in "
        f"{others} of the records of {one.identity}: it was edited, or is of other data; restore "
        "the file, or delete it and run again"
    )


def _data(record: RunRecord) -> tuple[object, ...]:
    return record.identity, record.spec.data, record.spec.labels


def holds(file: Path, record: RunRecord) -> bool:
    """Whether this record stands there; as JSON, since a NaN is no equal of itself."""
    found = attempt(file) if file.exists() else None
    return isinstance(found, RunRecord) and found.model_dump_json() == record.model_dump_json()


def current_file(place: Path, record: RunRecord) -> Path:
    """Where a record stands, be it superseded or not; ``place`` is that of the newest one."""
    old = [file for file in _old_names(place, record.started) if file.exists()]
    if not old or holds(place, record):
        return place
    return next((file for file in old if holds(file, record)), place)


def superseded_by(place: Path, record: RunRecord) -> list[tuple[Path, bytes]]:
    """The files of another record at the place of a new one, under the names that keep them."""
    old = attempt(place) if place.exists() else None
    if not isinstance(old, RunRecord) or holds(place, record):
        return []
    names = _old_names(place, old.started)
    kept_as = next(file for file in names if holds(file, old) or not file.exists())
    kept = [(kept_as, place.read_bytes())]
    with suppress(FileNotFoundError):
        predictions = place.with_suffix(".npz").read_bytes()
        kept.insert(0, (kept_as.with_suffix(".npz"), predictions))
    return kept


def _old_names(place: Path, started: str) -> Iterator[Path]:
    """Files of superseded records of a run that began then, and a free name after them."""
    name = safe_name(f"{place.stem}.{started}")
    for number in count(1):
        file = place.parent / SUPERSEDED / f"{name}{f'.{number}' if number > 1 else ''}.json"
        yield file
        if not file.exists():
            return
