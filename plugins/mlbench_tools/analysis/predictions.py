"""Read predictions to score: those of a run, or anybody's in an .npz or .csv file."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix
from mlbench.metrics.measures import ProtocolInput
from mlbench.store import VALIDATION, Store
from mlbench.text import count
from mlbench.types import DataError, RunRecord, StoreError, Targets

ARRAYS = (
    "an .npz holds targets [images, labels] with 1 present, 0 absent, -1 unknown, and logits or "
    "probabilities of the same shape; optionally keys [images], names [labels], "
    "validation_logits, validation_targets and train_positives [labels]"
)
COLUMNS = (
    "a .csv holds a line for each image, with the columns key, target:LABEL (1, 0; blank or -1 is "
    "unknown) and logit:LABEL or probability:LABEL for each label"
)
KINDS = {"logits": "logit", "probabilities": "probability"}
"""Arrays of scores -> what one of their entries is called."""

TARGET_WORDS = {"": "-1", "True": "1", "False": "0"}
"""Cells of a .csv that stand for a target besides numbers; pandas writes True and False."""

CERTAIN = 1000.0
"""The logit of probability 1, beyond that of every other probability that a float can hold."""


@dataclass(frozen=True)
class ScoredFile:
    """The predictions of a file or a run.

    Attributes:
        given: what protocols score.
        names: of the labels [C].
        run_id: of the run that they come from, if any.
        warnings: values that may mean something else, with the remedy.
    """

    file: Path
    given: ProtocolInput
    names: tuple[str, ...]
    run_id: str | None = None
    warnings: tuple[str, ...] = ()


def read(source: str, results: Path) -> ScoredFile:
    """Read the predictions that the user named.

    Args:
        source: a file (.npz, .csv, or the .json of a record in its store), or a run id or the
            beginning of one.
        results: the store for looking up a run id.

    Raises:
        StoreError: there is no such file or run, several fit, or it is damaged.
        DataError: the file does not hold valid predictions.
    """
    file = Path(source)
    if file.suffix in (".npz", ".csv", ".json") and not file.exists():
        raise StoreError(f"{file}: no such file")
    if file.suffix == ".npz":
        return _from_arrays(file, _read_npz(file))
    if file.suffix == ".csv":
        return _from_arrays(file, _read_csv(file))
    if file.suffix == ".json":
        return _from_record(file)
    if file.is_file():
        raise DataError(f"{file}: not a .npz, .csv or .json; {ARRAYS}; {COLUMNS}")
    store = Store(results)
    record = store.find(source)
    if record is None:
        raise StoreError(
            f"{source}: neither a file nor a run in {results}; --results names another store"
        )
    return _from_run(store, record)


def _from_record(file: Path) -> ScoredFile:
    folders = file.absolute().parents
    store = Store(folders[3]) if len(folders) > 3 and folders[2].name == "records" else None
    record = store.get(file.stem) if store else None
    if store is None or record is None:
        raise StoreError(
            f"{file}: not a record of a store (results/records/EDITION/METHOD/RUN.json); "
            f"score {file.with_suffix('.npz')} instead"
        )
    return _from_run(store, record)


def _from_run(store: Store, record: RunRecord) -> ScoredFile:
    given = ProtocolInput.of_run(store.predictions(record), record)
    return ScoredFile(store.file(record), given, record.label_names, record.run_id)


# --------------------------------------------------------------------------------- files -> arrays
def _read_npz(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise StoreError(
            f"{file}: damaged or no .npz ({type(error).__name__}); restore the file"
        ) from error


def _read_csv(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays that an .npz of the same predictions would hold."""
    try:
        # The Python engine alone tells a missing field (NaN) from a blank one.
        cells = pd.read_csv(
            file, header=None, dtype=str, na_filter=False, encoding="utf-8-sig", engine="python"
        )
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: cannot be read as a table ({error}); {COLUMNS}") from error
    header = [str(cell) for cell in cells.iloc[0]]
    kind, names = _layout(file, header)
    table = cells.iloc[1:].set_axis(header, axis=1)
    keys = table["key"].to_numpy(dtype=object)
    short = table.isna().any(axis=1)
    if short.any():
        raise DataError(
            f"{file}: the line of image {keys[short.argmax()]!r} has fewer fields than the header "
            f"({len(header)}); was the file cut short?"
        )
    targets = table[[f"target:{name}" for name in names]].replace(TARGET_WORDS)
    scores = table[[f"{KINDS[kind]}:{name}" for name in names]]
    return {
        "keys": keys,
        "names": np.array(names),
        "targets": _numbers(file, targets),
        kind: _numbers(file, scores),
    }


def _layout(file: Path, header: Sequence[str]) -> tuple[str, list[str]]:
    """Which scores a table holds, and the names of its labels."""
    repeated = [name for name, times in Counter(header).items() if times > 1]
    if repeated:
        raise DataError(f"{file}: has column {repeated[0]!r} twice; {COLUMNS}")
    labels = {
        prefix: [
            name.removeprefix(f"{prefix}:") for name in header if name.startswith(f"{prefix}:")
        ]
        for prefix in ("target", *KINDS.values())
    }
    kinds = [kind for kind, entry in KINDS.items() if labels[entry]]
    if len(kinds) == 2:
        raise DataError(f"{file}: has logits and probabilities; give one of the two; {COLUMNS}")
    if not kinds or not labels["target"] or "key" not in header:
        raise DataError(f"{file}: has the columns {', '.join(header[:6])}, ...; {COLUMNS}")
    entry = KINDS[kinds[0]]
    if odd := sorted(set(labels["target"]) ^ set(labels[entry])):
        raise DataError(
            f"{file}: {', '.join(map(repr, odd[:3]))} has only one of target and {entry}; {COLUMNS}"
        )
    return kinds[0], labels["target"]


def _numbers(file: Path, cells: pd.DataFrame) -> NDArray[np.float64]:
    columns = []
    for name in cells:
        try:
            columns.append(cells[name].to_numpy(dtype=object).astype(np.float64))
        except ValueError as error:
            raise DataError(
                f"{file}: column {name}: {error}; give every label of an image a number, or leave "
                "the image out"
            ) from error
    return np.stack(columns, axis=1)


# --------------------------------------------------------------------------- arrays -> predictions
def _from_arrays(file: Path, arrays: Mapping[str, NDArray[Any]]) -> ScoredFile:
    given_names = _listed(file, arrays, "names")
    warnings: list[str] = []
    logits, targets = _split(file, arrays, "", given_names, warnings)
    labels = targets.shape[1]
    if given_names is None:
        names = tuple(f"label {i}" for i in range(labels))
    else:
        names = tuple(map(str, given_names))
    if len(names) != labels or len(set(names)) != len(names):
        raise DataError(
            f"{file}: {len(names)} label names, {len(set(names))} of them different, for {labels} "
            "columns; give each column a name of its own"
        )
    validation = None
    if any(f"{VALIDATION}{name}" in arrays for name in (*KINDS, "targets")):
        validation = _split(file, arrays, VALIDATION, given_names, warnings)
        if (found := validation[1].shape[1]) != labels:
            raise DataError(
                f"{file}: its validation arrays have {count(found, 'label')} and the others "
                f"{labels}; give the same labels, in the same order"
            )
    given = ProtocolInput(logits, targets, validation, arrays.get("train_positives"))
    return ScoredFile(file, given, names, warnings=tuple(warnings))


def _split(
    file: Path,
    arrays: Mapping[str, NDArray[Any]],
    prefix: str,
    names: Sequence[str] | None,
    warnings: list[str],
) -> tuple[ScoreMatrix, Targets]:
    """The logits and targets of a split, checked; the first invalid entry is named."""
    kind = _kind(file, arrays, prefix)
    scores, targets = arrays[f"{prefix}{kind}"], arrays[f"{prefix}targets"]
    if scores.ndim != 2 or scores.shape != targets.shape or scores.dtype.kind != "f":
        raise DataError(
            f"{file}: {prefix}{kind} {scores.dtype} {scores.shape} and targets {targets.shape} "
            f"must both be [images, labels], the scores as floats; {ARRAYS}"
        )
    if not targets.size:
        lacking = "labels" if len(targets) else "images"
        raise DataError(f"{file}: holds no {lacking}, so that there is nothing to score")
    keys = _listed(file, arrays, f"{prefix}keys")
    if keys is not None and not len(keys) == len(set(keys)) == len(targets):
        raise DataError(
            f"{file}: {count(len(keys), 'key')}, {len(set(keys)):,} of them different, for "
            f"{count(len(targets), 'image')}; each image must be there once"
        )

    def refuse(invalid: NDArray[np.bool_], array: NDArray[Any], entry: str, problem: str) -> None:
        for image, label in np.argwhere(invalid)[:1].tolist():
            key = image if keys is None else repr(keys[image])
            name = label if not names or label >= len(names) else repr(names[label])
            where = f"{file}: {prefix}{entry} of image {key}, label {name}"
            raise DataError(f"{where}: {array[image, label]} {problem}")

    entry, finite = KINDS[kind], np.isfinite(scores)
    refuse(~finite, scores, entry, "is not finite; give a finite number, or leave the image out")
    invalid = ~np.isin(targets, (-1, 0, 1))
    refuse(invalid, targets, "target", "is no target; 1 is present, 0 absent and -1 unknown")
    if kind == "probabilities":
        outside = (scores < 0) | (scores > 1)
        refuse(outside, scores, entry, "is not within 0 and 1; if it is a logit, name it so")
    if not (targets == 0).any() and (targets == 1).any():
        remedy = "write 0 instead of -1 if that means absent here" if -1 in targets else "add them"
        raise DataError(
            f"{file}: {prefix}targets has no 0 (absent), so that any scores would have 100 % mAP; "
            f"{remedy}"
        )
    warnings += _doubts(file, prefix, kind, scores, targets)
    return scores if kind == "logits" else _logits(scores), targets.astype(np.int8)


def _kind(file: Path, arrays: Mapping[str, NDArray[Any]], prefix: str) -> str:
    """Which scores a split has."""
    kinds = [kind for kind in KINDS if f"{prefix}{kind}" in arrays]
    if len(kinds) == 2:
        both = " and ".join(f"{prefix}{kind}" for kind in kinds)
        raise DataError(f"{file}: holds {both}; give one of the two")
    if not kinds or f"{prefix}targets" not in arrays:
        lacking = f"{prefix}targets" if kinds else f"{prefix}logits or {prefix}probabilities"
        raise DataError(
            f"{file}: lacks {lacking}; it holds {', '.join(sorted(arrays)) or 'nothing'}; {ARRAYS}"
        )
    return kinds[0]


def _listed(file: Path, arrays: Mapping[str, NDArray[Any]], name: str) -> list[Any] | None:
    if name not in arrays:
        return None
    if arrays[name].ndim != 1:
        raise DataError(f"{file}: {name} {arrays[name].shape} must have one dimension; {ARRAYS}")
    found: list[Any] = arrays[name].tolist()
    return found


def _doubts(
    file: Path, prefix: str, kind: str, scores: ScoreMatrix, targets: Targets
) -> Iterator[str]:
    """Valid values that may mean something else, with the remedy."""
    if kind == "logits" and scores.min() >= 0 and scores.max() <= 1:
        yield (
            f"{file}: every number of {prefix}logits lies within 0 and 1, as probabilities do, "
            "and is taken as a logit, so that every label counts as predicted at probability 0.5; "
            "if they are probabilities, name them so"
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
