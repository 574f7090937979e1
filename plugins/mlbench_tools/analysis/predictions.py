"""Predictions from a file: a run's own, or somebody else's as .npz or .csv."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.measurement import Case
from mlbench.store import VALIDATION, Store, damage
from mlbench.text import count
from mlbench.types import DataError, RunRecord, StoreError
from mlbench_tools.analysis import predictions_csv
from mlbench_tools.analysis.predictions_csv import COLUMNS
from mlbench_tools.analysis.predictions_split import Split, doubts, labelled

ARRAYS = (
    "an .npz holds targets [images, labels] with 1 present, 0 absent, -1 unknown, and logits or "
    "probabilities of the same shape; if it likes, keys [images], names [labels], "
    "validation_logits, validation_targets and train_positives [labels]"
)


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
        case: what is scored.
        names: of the labels [C].
        run_id: of the run that it is of, if any.
        doubts: what stands there and may be meant otherwise.
    """

    file: Path
    case: Case
    names: tuple[str, ...]
    run_id: str | None = None
    doubts: tuple[str, ...] = ()


def read(source: str, results: Path) -> Found:
    """Read what the user named.

    Args:
        source: a file (.npz, .csv, or the .json of a record with its .npz beside it), or a run id
            or the beginning of one.
        results: the store that a run id is looked up in.

    Raises:
        StoreError: there is no such file or run, several are meant, or it is damaged.
        DataError: it is whole, but not what predictions must be.
    """
    file = Path(source)
    if file.suffix == ".npz":
        return _from_arrays(file)
    if file.suffix == ".csv":
        return _from_table(file)
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
    return _of_run(store, record)


# ------------------------------------------------------------------------------------------- a run
def _from_record(file: Path) -> Found:
    """The store's own layout says where its root is; elsewhere the two files lie side by side."""
    if not file.exists():
        raise StoreError(f"{file}: no such record")
    store = Store(file.absolute().parents[3])
    record = store.get(file.stem) if file.absolute().parents[2].name == "records" else None
    if record is None:
        raise StoreError(
            f"{file}: not a record of a store (results/records/EDITION/METHOD/RUN.json); "
            f"score {file.with_suffix('.npz')} instead"
        )
    return _of_run(store, record)


def _of_run(store: Store, record: RunRecord) -> Found:
    case = Case.of_run(store.predictions(record), record)
    return Found(store.file(record), case, record.label_names, record.run_id)


# -------------------------------------------------------------------------------------------- .npz
def _from_arrays(file: Path) -> Found:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise StoreError(f"{file}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise StoreError(
            f"{file}: damaged or no .npz ({damage(error)}); restore the file"
        ) from error
    test = _split(held, "", file)
    labels = test.targets.shape[1]
    given = _listed(held, "names", file)
    names = tuple(f"label {i}" for i in range(labels)) if given is None else tuple(map(str, given))
    _check_names(file, names, labels)
    splits = [test]
    if any(f"{VALIDATION}{name}" in held for name in ("logits", "probabilities", "targets")):
        split = _split(held, VALIDATION, file)
        if split.targets.shape[1] != labels:
            found = count(split.targets.shape[1], "label")
            raise DataError(
                f"{file}: its validation arrays have {found} and the others {labels}; "
                "give the same labels, in the same order"
            )
        splits.append(split)
    scored, *validation = [labelled(split) for split in splits]
    held_out = validation[0] if validation else None
    case = Case(*scored, held_out, held.get("train_positives"), names=names)
    return Found(file, case, names, doubts=tuple(d for split in splits for d in doubts(split)))


def _split(held: Mapping[str, NDArray[Any]], prefix: str, file: Path) -> Split:
    """The arrays of a split, of shapes that fit."""
    kinds = [kind for kind in ("logits", "probabilities") if f"{prefix}{kind}" in held]
    if len(kinds) == 2:
        both = " and ".join(f"{prefix}{kind}" for kind in kinds)
        raise DataError(f"{file}: holds {both}; give one of the two")
    if not kinds or f"{prefix}targets" not in held:
        lacks = f"{prefix}targets" if kinds else f"{prefix}logits or {prefix}probabilities"
        raise DataError(
            f"{file}: lacks {lacks}; it holds {', '.join(sorted(held)) or 'nothing'}; {ARRAYS}"
        )
    scores, targets = held[f"{prefix}{kinds[0]}"], held[f"{prefix}targets"]
    if scores.ndim != 2 or scores.shape != targets.shape or scores.dtype.kind != "f":
        raise DataError(
            f"{file}: {prefix}scores {scores.dtype} {scores.shape} and targets {targets.shape} "
            f"must both be [images, labels], the scores as floats; {ARRAYS}"
        )
    names, keys = _listed(held, "names", file), _listed(held, f"{prefix}keys", file)
    if keys is not None:
        _check_keys(file, keys, len(targets))

    def place(what: str, image: int, label: int) -> str:
        key = image if keys is None else repr(keys[image])
        name = label if names is None else repr(names[label])
        return f"{file}: {prefix}{what} of image {key}, label {name}"

    kind = "logit" if kinds[0] == "logits" else "probability"
    called = {"logit": "logits", "probability": "probabilities", "target": "targets"}
    called = {what: prefix + name for what, name in called.items()}
    return Split(file, kind, scores, targets, called, place)


def _listed(held: Mapping[str, NDArray[Any]], name: str, file: Path) -> list[Any] | None:
    if name not in held:
        return None
    if held[name].ndim != 1:
        raise DataError(f"{file}: {name} {held[name].shape} must have one dimension; {ARRAYS}")
    found: list[Any] = held[name].tolist()
    return found


# -------------------------------------------------------------------------------------------- .csv
def _from_table(file: Path) -> Found:
    table = predictions_csv.read(file)
    _check_names(file, table.names, len(table.names))
    _check_keys(file, table.keys, len(table.keys))
    shape = len(table.keys), len(table.names)

    def place(what: str, image: int, label: int) -> str:
        return f"{file}: line {table.lines[image]}, column {what}:{table.names[label]}"

    scores, targets = (np.array(a).reshape(shape) for a in (table.scores, table.targets))
    called = {what: f"{what}:LABEL" for what in ("logit", "probability", "target")}
    split = Split(file, table.kind, scores, targets, called, place)
    case = Case(*labelled(split), names=table.names)
    return Found(file, case, table.names, doubts=tuple(doubts(split)))


# -------------------------------------------------------------------------------------- either one
def _check_names(file: Path, names: Sequence[str], labels: int) -> None:
    if len(names) != labels or len(set(names)) != len(names):
        raise DataError(
            f"{file}: {len(names)} label names, {len(set(names))} of them different, for {labels} "
            "columns; give each column a name of its own"
        )


def _check_keys(file: Path, keys: Sequence[object], images: int) -> None:
    twice = [str(key) for key, times in Counter(keys).items() if times > 1]
    if twice or len(keys) != images:
        raise DataError(
            f"{file}: {count(len(keys), 'key')} for {count(images, 'image')}"
            + (f", and {twice[0]!r} stands there more than once" if twice else "")
            + "; each image must be there once"
        )
