"""The literature's other protocols on the predictions of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mlbench.boards.rows import Table
from mlbench.metrics.measurement import Case
from mlbench.metrics.protocols import PROTOCOLS, find, measure
from mlbench.store import Store
from mlbench.types import RunRecord, StoreError, Value
from mlbench_tools.page import derived
from mlbench_tools.page.reliability import Reliability, reliability


class Line(Value):
    """A protocol's numbers, and what it is.

    Attributes:
        oracle: it reads the answers of the split that it scores.
    """

    name: str
    values: dict[str, float]
    definition: str
    oracle: bool

    @property
    def numbers(self) -> str:
        """All of them in one text."""
        return ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())


class Lines(Value):
    """All protocols that are defined on a run's predictions.

    Attributes:
        undefined: name -> why a protocol has no numbers here.
        reliability: None where ``calibration`` is not defined.
    """

    lines: tuple[Line, ...]
    undefined: dict[str, str] = {}
    reliability: Reliability | None = None


Read = Callable[[str], Lines | None]
"""Run id -> what is known of the run by other protocols."""
CANONICAL = ("canonical", "ap")
"""Protocols whose numbers the board has anyway."""

# Another version of a protocol gives other numbers.
_VERSIONS = "\n".join(f"{p.name} {p.version} {p.definition}" for p in PROTOCOLS.values())
KIND = f"protocols-3-{hashlib.sha256(_VERSIONS.encode()).hexdigest()[:8]}"
"""Of what is cached; another number makes all of them anew."""


def protocols(store: Store, record: RunRecord, file: Path, cache: Path) -> Lines:
    """Every protocol that differs on a run's predictions, from the cache where it is there.

    Args:
        store: holds the run.
        record: the run.
        file: its predictions.
        cache: a folder for the answers.

    Raises:
        StoreError: the predictions are missing or damaged.
        MeasureError: they hold numbers that are not finite.
    """
    place = derived.place(file, _kind(record), cache)
    if (known := derived.read(place, Lines)) is not None:
        return known
    held = store.predictions(record)
    report = measure(Case.of_run(held, record))
    calibrated = report.found.get("calibration")
    found = Lines(
        lines=tuple(_line(n, dict(m.values)) for n, m in report.found.items()),
        undefined=dict(report.undefined),
        reliability=reliability(calibrated) if calibrated else None,
    )
    derived.keep(place, found)
    return found


def known(record: RunRecord, file: Path, cache: Path) -> Lines | None:
    """What the cache holds for a run and its predictions."""
    return derived.read(derived.place(file, _kind(record), cache), Lines)


def board_values(table: Table, read: Read) -> tuple[dict[str, list[str]], list[list[Any]]]:
    """What a board's rows score by the other protocols, means over the seeds of a row.

    Args:
        table: the board.
        read: what is known of a run, None where nothing is.

    Returns:
        Protocol -> the names of its values, and per row a list with an entry per protocol: its
        values in that order (None where it is not defined), or None where a seed of the row was not
        measured by it.
    """
    rows = [_means([read(run_id) for run_id in row.run_ids]) for row in table.rows]
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, means in row.items():
            names.setdefault(name, {}).update(dict.fromkeys(means))
    return {name: list(values) for name, values in names.items()}, [
        [
            [row[name].get(value) for value in values] if name in row else None
            for name, values in names.items()
        ]
        for row in rows
    ]


def _means(runs: Sequence[Lines | None]) -> dict[str, dict[str, float]]:
    """Protocol -> value -> mean over the seeds, of what all of them have."""
    known = [{line.name: line.values for line in run.lines} for run in runs if run is not None]
    if len(known) < len(runs) or not known:
        return {}
    shared = [n for n in known[0] if n not in CANONICAL and all(n in seed for seed in known)]
    return {
        name: {
            value: _short(fmean(seed[name][value] for seed in known))
            for value in known[0][name]
            if not value.startswith("classes_") and all(value in seed[name] for seed in known)
        }
        for name in shared
    }


def cached(records: Mapping[str, RunRecord], store: Store, cache: Path) -> Read:
    """Reads what earlier pages have measured of a run."""

    def read(run_id: str) -> Lines | None:
        record = records[run_id]
        try:
            return known(record, store.predictions_file(record), cache)
        except StoreError:  # the run's own page says what is wrong
            return None

    return read


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _kind(record: RunRecord) -> str:
    """The predictions file does not hold the training positives, which ``groups`` depends on."""
    if record.train_positives is None:
        return KIND
    return f"{KIND}-{hashlib.sha256(repr(record.train_positives).encode()).hexdigest()[:8]}"


def _line(name: str, values: dict[str, float]) -> Line:
    protocol = find(name)
    return Line(name=name, values=values, definition=protocol.definition, oracle=protocol.oracle)
