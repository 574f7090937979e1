"""The literature's other protocols on the predictions of a run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mlbench.leaderboard.page import derived
from mlbench.leaderboard.page.reliability import Reliability, reliability
from mlbench.metrics.measurement import Case, Labelled
from mlbench.metrics.protocols import PROTOCOLS, find, measure
from mlbench.store import Store
from mlbench.types import RunRecord, Value


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
        reliability: None where ``calibration`` is not defined.
    """

    lines: tuple[Line, ...]
    reliability: Reliability | None = None


# Another version of a protocol gives other numbers.
_VERSIONS = "\n".join(f"{p.name} {p.version} {p.definition}" for p in PROTOCOLS.values())
KIND = f"protocols-2-{hashlib.sha256(_VERSIONS.encode()).hexdigest()[:8]}"
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
    place = derived.place(file, KIND, cache)
    if (known := derived.read(place, Lines)) is not None:
        return known
    held = store.predictions(record)
    chosen = held.validation and Labelled(held.validation.logits, held.validation.targets)
    report = measure(Case(held.logits, held.targets, chosen or None))
    calibrated = report.found.get("calibration")
    found = Lines(
        lines=tuple(_line(n, dict(m.values)) for n, m in report.found.items()),
        reliability=reliability(calibrated) if calibrated else None,
    )
    derived.keep(place, found)
    return found


def known(file: Path, cache: Path) -> Lines | None:
    """What the cache holds for these predictions."""
    return derived.read(derived.place(file, KIND, cache), Lines)


def _line(name: str, values: dict[str, float]) -> Line:
    protocol = find(name)
    return Line(name=name, values=values, definition=protocol.definition, oracle=protocol.oracle)
