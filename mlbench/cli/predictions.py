"""Predictions from a file: a run's own, or somebody else's as .npz or .csv."""

from __future__ import annotations

import glob
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlbench.metrics.measurement import Case, Labelled
from mlbench.store import Store, safe_name
from mlbench.types import DataError, StoreError, Targets

CERTAIN = 1000.0
"""The logit of probability 1, beyond that of every other probability that a float can hold."""

ARRAYS = (
    "an .npz holds targets [images, labels] with 1 present, 0 absent, -1 unknown, and logits or "
    "probabilities of the same shape; if it likes, keys [images], names [labels], "
    "validation_logits, validation_targets and train_positives [labels]"
)
COLUMNS = (
    "a .csv holds a line for each image, with the columns key, target:LABEL (1, 0; blank or -1 is "
    "unknown) and logit:LABEL or probability:LABEL for each label"
)


@dataclass(frozen=True)
class Found:
    """What a file holds: the case, its label names [C], and the run that it is of, if any."""

    file: Path
    case: Case
    names: tuple[str, ...]
    run_id: str | None = None


def read(source: str, results: Path) -> Found:
    """Read what the user named.

    Args:
        source: a file (.npz, .csv, or the .json of a record with its .npz beside it), or a run id.
        results: the store that a run id is looked up in.

    Raises:
        StoreError: there is no such file or run, or it is damaged.
        DataError: it is whole, but not what predictions must be.
    """
    file = Path(source)
    if file.suffix == ".npz":
        return _from_arrays(file)
    if file.suffix == ".csv":
        return _from_table(file)
    if file.suffix == ".json":
        return _from_record(file)
    if file.exists():
        raise DataError(f"{file}: not a .npz, .csv or .json; {ARRAYS}; {COLUMNS}")
    places = sorted((results / "records").glob(f"*/*/{glob.escape(safe_name(source))}.json"))
    if not places:
        raise StoreError(
            f"{source}: neither a file nor a run in {results}; --results names another store"
        )
    return _from_record(places[0])


# -------------------------------------------------------------------------------------------- .npz
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
    predictions = store.predictions(record)
    held_out = predictions.validation
    pair = None if held_out is None else Labelled(held_out.logits, held_out.targets)
    case = Case(predictions.logits, predictions.targets, pair)
    return Found(file, case, record.label_names, record.run_id)


def _from_arrays(file: Path) -> Found:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise StoreError(f"{file}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise StoreError(
            f"{file}: damaged or no .npz ({type(error).__name__}: {error}); restore the file"
        ) from error
    pair = _pair(held, "", file)
    assert pair is not None
    labels = pair.targets.shape[1]
    names = tuple(str(n) for n in held.get("names", [f"label {i}" for i in range(labels)]))
    _check_names(file, names, labels)
    if "keys" in held:
        _check_keys(file, held["keys"].tolist(), len(pair.targets))
    case = Case(*pair, _pair(held, "validation_", file), held.get("train_positives"))
    return Found(file, case, names)


def _pair(held: Mapping[str, NDArray[Any]], prefix: str, file: Path) -> Labelled | None:
    """Logits and targets of a split; None of a validation split that is not there."""
    logits, chances = held.get(f"{prefix}logits"), held.get(f"{prefix}probabilities")
    targets = held.get(f"{prefix}targets")
    if prefix and logits is None and chances is None and targets is None:
        return None
    if targets is None or (logits is None) == (chances is None):
        raise DataError(f"{file}: holds {', '.join(sorted(held)) or 'nothing'}; {ARRAYS}")
    scores = logits if chances is None else _logits(chances, f"{file}: {prefix}probabilities")
    assert scores is not None
    if scores.ndim != 2 or scores.shape != targets.shape or scores.dtype.kind != "f":
        raise DataError(
            f"{file}: {prefix}scores {scores.dtype} {scores.shape} and targets {targets.shape} "
            f"must both be [images, labels], the scores as floats; {ARRAYS}"
        )
    return Labelled(scores, _targets(targets, f"{file}: {prefix}targets"))


# -------------------------------------------------------------------------------------------- .csv
def _from_table(file: Path) -> Found:
    table = _table(file)
    columns = [str(column) for column in table.columns]
    kinds = [k for k in ("logit", "probability") if any(c.startswith(f"{k}:") for c in columns)]
    names = [c.removeprefix("target:") for c in columns if c.startswith("target:")]
    if len(kinds) != 1 or not names or "key" not in columns:
        raise DataError(f"{file}: has the columns {', '.join(columns[:6])}, ...; {COLUMNS}")
    kind = kinds[0]
    scored = [c.removeprefix(f"{kind}:") for c in columns if c.startswith(f"{kind}:")]
    if odd := sorted(set(names) ^ set(scored)):
        raise DataError(
            f"{file}: {', '.join(map(repr, odd[:3]))} has only one of target and {kind}; {COLUMNS}"
        )
    _check_keys(file, table["key"].tolist(), len(table))
    scores = _numbers(table, [f"{kind}:{name}" for name in names], file)
    targets = np.nan_to_num(_numbers(table, [f"target:{name}" for name in names], file), nan=-1)
    if kind == "probability":
        scores = _logits(scores, f"{file}: probabilities")
    return Found(file, Case(scores, _targets(targets, f"{file}: targets")), tuple(names))


def _table(file: Path) -> pd.DataFrame:
    blank: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}  # a key may be NA
    try:
        header = pd.read_csv(file, header=None, nrows=1, dtype=str).iloc[0].tolist()
        table: pd.DataFrame = pd.read_csv(file, dtype={"key": str}, **blank)
    except FileNotFoundError as error:
        raise StoreError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:  # pandas' own errors of form are ValueErrors
        raise StoreError(f"{file}: cannot be read as a table ({error}); {COLUMNS}") from error
    # pandas would rename a column that is there twice, and take a field too many for an index.
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice or not isinstance(table.index, pd.RangeIndex):
        wrong = f"column {twice[0]!r} twice" if twice else "more fields in a line than columns"
        raise DataError(f"{file}: has {wrong}; {COLUMNS}")
    return table


def _numbers(table: pd.DataFrame, columns: list[str], file: Path) -> NDArray[np.float64]:
    for column in columns:
        if table[column].dtype.kind not in "biuf":
            strange = pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()
            line = int(strange.to_numpy().argmax())
            raise DataError(
                f"{file}: line {line + 2}, column {column}: {table[column].iloc[line]!r} is no "
                "number"
            )
    return table[columns].to_numpy(dtype=np.float64)


# -------------------------------------------------------------------------------------- either one
def _logits(chances: NDArray[Any], where: str) -> NDArray[np.float64]:
    """Logits [N, C] of probabilities; the ranking stays as it was."""
    p = np.asarray(chances, dtype=np.float64)
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        raise DataError(
            f"{where}: {np.count_nonzero(wrong)} are not within 0 and 1, the first is "
            f"{p[wrong][0]}; name them logits if that is what they are"
        )
    inside = np.clip(p, np.nextafter(0, 1), np.nextafter(1, 0))
    logits = np.log(inside) - np.log1p(-inside)
    return np.where(p == 0, -CERTAIN, np.where(p == 1, CERTAIN, logits))


def _targets(targets: NDArray[Any], where: str) -> Targets:
    strange = ~np.isin(targets, (-1, 0, 1))
    if strange.any():
        image, label = (int(i) for i in np.argwhere(strange)[0])
        raise DataError(
            f"{where}: image {image}, label {label} has {targets[image, label]}; a target is 1 "
            "present, 0 absent or -1 unknown"
        )
    return targets.astype(np.int8)


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
            f"{file}: {len(keys)} keys for {images} images"
            + (f", and {twice[0]!r} stands there more than once" if twice else "")
            + "; each image must be there once"
        )
