"""Read predictions to score: those of a run, or anybody's in an .npz or .csv file."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.evidence import VALIDATION
from mlbench.metrics.average_precision import ScoreMatrix, check_arrays
from mlbench.numbers import outdated
from mlbench.store import Store
from mlbench.text import count, shorten
from mlbench.types import DataError, MeasureError, StoreError, Targets
from mlbench_tools.scoring.measures import ProtocolInput

FORMATS = (
    "an .npz holds targets [images, labels] with 1 present, 0 absent, -1 unknown, and logits or "
    "probabilities of the same shape; optionally keys [images], names [labels], "
    "validation_logits, validation_targets and train_positives [labels]; a .csv has a line for "
    "each image, with the columns key, target:LABEL (1, 0; blank or -1 is unknown) and "
    "logit:LABEL or probability:LABEL for each label"
)
SCORES = ("logits", "probabilities")
"""Arrays of scores; a file has one of the two."""

COLUMNS = {"targets": "target:", "logits": "logit:", "probabilities": "probability:"}
"""Array -> how the names of its columns in a .csv begin."""

TARGET_WORDS = {"": "-1", "True": "1", "False": "0"}
"""Cell of a .csv that is no number -> the target that it stands for; pandas writes True, False."""

CERTAIN = 1000.0
"""The logit of probability 1, larger than the logit of any float below 1."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ScoredFile:
    """The predictions of a file or a run.

    Attributes:
        given: what protocols score.
        names: names of the labels [C].
        run_id: id of the run that made them, if any.
        warnings: values that may mean something else, with the remedy.
    """

    file: Path
    given: ProtocolInput
    names: tuple[str, ...]
    run_id: str | None = None
    warnings: tuple[str, ...] = ()


def read(source: str, results: Path) -> ScoredFile:
    """Read the predictions that the user named.

    Raises:
        StoreError: there is no such file or run, several fit, or it is damaged.
        DataError: the file does not hold valid predictions.
    """
    file = Path(source)
    beside = file.with_suffix(".json")
    if "records" in file.absolute().parts[-4:-3] and beside.is_file():
        file = beside  # the record of these predictions has their digests
    if file.suffix == ".npz":
        return _from_arrays(file, _read_npz(file))
    if file.suffix == ".csv":
        return _from_arrays(file, _read_csv(file))
    run = source
    if file.suffix == ".json":  # results/records/EDITION/METHOD/RUN.json
        run, results = file.stem, [*file.absolute().parents][:4][-1]
    store = Store(results)
    record = store.find(run)
    if record is None:
        raise StoreError(
            f"{source}: neither an .npz, a .csv or the .json of a record, nor a run in {results}; "
            "--results names another store"
        )
    given = ProtocolInput.of_run(store.predictions(record), record)
    reason = outdated(record.numbers)
    warnings = (f"run {record.run_id} was made by other code ({reason})",) if reason else ()
    return ScoredFile(store.file(record), given, record.label_names, record.run_id, warnings)


# --------------------------------------------------------------------------------- files -> arrays
def _read_npz(file: Path) -> Arrays:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise StoreError(f"{file}: no such file") from error
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged bytes
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise DataError(
                f"{file}: an array holds objects of Python, such as texts from pandas; save texts "
                "with names=names.astype(str), and numbers with .astype(float) (targets: "
                ".astype('int8'))"
            ) from error
        raise StoreError(
            f"{file}: damaged or no .npz ({type(error).__name__}); restore the file"
        ) from error


def _read_csv(file: Path) -> Arrays:
    """The arrays that an .npz of the same predictions would hold."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            header, *lines = (line for line in csv.reader(stream, strict=True) if line)
    except UnicodeDecodeError as error:
        command = f"iconv -f LATIN1 -t UTF-8 {shlex.quote(str(file))}"
        raise DataError(
            f"{file}: byte {error.object[error.start]:#04x} is not UTF-8; if it is Latin-1: "
            f"{command} > {shlex.quote(str(file.with_suffix('.utf8.csv')))}"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise StoreError(f"{file}: cannot be read as a table ({error}); {FORMATS}") from error
    if "key" not in header and (mark := next((m for m in ";\t|" if m in header[0]), None)):
        read = f"{json.dumps(str(file))}, sep={json.dumps(mark)}, dtype=str, keep_default_na=False"
        code = f"import pandas; print(pandas.read_csv({read}).to_csv(index=False))"
        raise DataError(
            f"{file}: {mark!r} separates its cells, where commas are expected: python -c "
            f"{shlex.quote(code)} > {shlex.quote(str(file.with_suffix('.new.csv')))}"
        )
    for line in lines:
        if len(line) != len(header):
            raise DataError(
                f"{file}: the line of {line[0]!r} has {len(line)} fields and the header "
                f"{len(header)}; was the file cut short?"
            )
    if "key" not in header or len(set(header)) < len(header):
        raise DataError(f"{file}: needs a column key, and no two columns of one name; {FORMATS}")
    cells = dict(zip(header, np.array(lines, object).reshape(-1, len(header)).T, strict=True))
    labels = {
        array: [name.removeprefix(prefix) for name in header if name.startswith(prefix)]
        for array, prefix in COLUMNS.items()
    }
    names = list(dict.fromkeys(name for found in labels.values() for name in found))
    arrays = {
        array: np.stack([_numbers(file, f"{COLUMNS[array]}{name}", cells) for name in names], 1)
        for array, found in labels.items()
        if found
    }
    return arrays | {"keys": cells["key"], "names": np.array(names)}


def _numbers(file: Path, column: str, cells: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    if column not in cells:
        raise DataError(f"{file}: lacks the column {column}; {FORMATS}")
    words = TARGET_WORDS if column.startswith(COLUMNS["targets"]) else {}
    try:
        return np.array([words.get(cell, cell) for cell in cells[column]], np.float64)
    except ValueError as error:
        raise DataError(
            f"{file}: column {column}: {error}; give every label of an image a number, or leave "
            "the image out"
        ) from error


# --------------------------------------------------------------------------- arrays -> predictions
def _from_arrays(file: Path, arrays: Arrays) -> ScoredFile:
    warnings: list[str] = []
    logits, targets = _split(file, arrays, "", warnings)
    labels = targets.shape[1]
    names = tuple(map(str, arrays.get("names", np.empty(0)).ravel().tolist()))
    names = names or tuple(f"label {i}" for i in range(labels))
    if len(names) != labels or len(set(names)) != len(names):
        raise DataError(
            f"{file}: {len(names)} label names, {len(set(names))} of them different, for {labels} "
            "columns; give each column a name of its own"
        )
    validation = None
    if any(f"{VALIDATION}{name}" in arrays for name in COLUMNS):
        validation = _split(file, arrays, VALIDATION, warnings)
    positives = arrays.get("train_positives")
    if positives is not None:
        whole = np.zeros(positives.shape, bool)
        if positives.dtype.kind in "iuf":
            whole = np.isfinite(positives) & (positives >= 0) & (positives == np.floor(positives))
        if not whole.all():
            raise DataError(
                f"{file}: train_positives are how many training images have each label, but hold "
                f"{shorten(positives[~whole].tolist())}; give whole numbers, or leave the array out"
            )
    given = ProtocolInput(logits, targets, validation, positives)
    return ScoredFile(file, given, names, warnings=tuple(warnings))


def _split(
    file: Path, arrays: Arrays, prefix: str, warnings: list[str]
) -> tuple[ScoreMatrix, Targets]:
    """The logits and targets of a split; whether they can be scored is for each protocol to say."""
    kinds = [kind for kind in SCORES if f"{prefix}{kind}" in arrays]
    if len(kinds) != 1 or f"{prefix}targets" not in arrays:
        raise DataError(
            f"{file}: needs {prefix}targets and either {prefix}logits or {prefix}probabilities; it "
            f"holds {', '.join(sorted(arrays)) or 'nothing'}; {FORMATS}"
        )
    kind = f"{prefix}{kinds[0]}"
    scores, targets = arrays[kind], arrays[f"{prefix}targets"]
    if scores.dtype.kind != "f" or not np.isin(targets, (-1, 0, 1)).all():
        raise DataError(
            f"{file}: {kind} must be floats, and {prefix}targets 1 (present), 0 (absent) or -1 "
            f"(unknown); {FORMATS}"
        )
    try:
        check_arrays(scores, targets)
    except MeasureError as error:
        raise DataError(f"{file}: {kind} and {prefix}targets: {error}") from error
    keys = arrays.get(f"{prefix}keys", np.arange(len(targets))).ravel().tolist()
    if not len(keys) == len(set(keys)) == len(targets):
        raise DataError(
            f"{file}: {count(len(keys), 'key')}, {len(set(keys)):,} of them different, for "
            f"{count(len(targets), 'image')}; each image must be there once"
        )
    if kinds == ["probabilities"] and ((scores < 0) | (scores > 1)).any():
        raise DataError(f"{file}: {kind} must lie within 0 and 1; if they are logits, name them so")
    warnings += _doubts(file, prefix, kind, scores, targets)
    return scores if kinds == ["logits"] else _logits(scores), targets.astype(np.int8)


def _doubts(
    file: Path, prefix: str, kind: str, scores: ScoreMatrix, targets: Targets
) -> Iterator[str]:
    """Valid values that may mean something else, with the remedy."""
    if kind.endswith("logits") and ((scores >= 0) & (scores <= 1)).all():
        yield (
            f"{file}: every number of {kind} lies within 0 and 1, as probabilities do, and is "
            "taken as a logit, so that every label counts as predicted at probability 0.5; if "
            "they are probabilities, name them so"
        )
    if kind.endswith("probabilities") and scores.dtype == np.float16:
        tied = int(np.count_nonzero(scores == 1))
        if tied > 1:
            yield (
                f"{file}: {count(tied, 'number')} of {kind} are 1 in 16 bits, which ranks their "
                "images alike; compute the sigmoid in 32 bits, or save logits"
            )
    unknown, absent = (int(np.count_nonzero(targets == value)) for value in (-1, 0))
    if unknown > absent:
        yield (
            f"{file}: {prefix}targets has -1 (unknown, counts nowhere) {count(unknown, 'time')} "
            f"and 0 (absent) {count(absent, 'time')}; if -1 means absent here and 0 difficult, as "
            "in VOC's own lists, exchange the two"
        )


def _logits(chances: NDArray[Any]) -> NDArray[np.float64]:
    """Logits [N, C] of probabilities, in the same order."""
    p = chances.astype(np.float64)
    inside = np.clip(p, np.nextafter(0, 1), np.nextafter(1, 0))
    logits = np.log(inside) - np.log1p(-inside)
    return np.where(p == 0, -CERTAIN, np.where(p == 1, CERTAIN, logits))
