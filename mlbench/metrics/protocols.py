"""Every protocol by name: ``evaluate("ap-interpolated+difficult-negative", logits, targets)``.

A treatment behind a plus sign changes how a protocol treats unknown entries or absent classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix, check
from mlbench.metrics.catalogue import CATALOGUE
from mlbench.metrics.measurement import Case, Labelled, Measurement, Protocol, Treatment
from mlbench.metrics.treatments import ALL, USERS
from mlbench.types import MeasureError, Predictions, RunRecord, Targets

Entry = TypeVar("Entry", Protocol, Treatment)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in CATALOGUE})
"""Name -> protocol, in the order of the catalogue."""

TREATMENTS: Mapping[str, Treatment] = MappingProxyType({t.name: t for t in ALL})
"""Name -> treatment."""

KINDS = ("difficult", "absent")
"""Of treatments, in the order of their names behind a protocol's."""

UNUSED = "nobody that we know of"
"""The source of a protocol with treatments that no paper combines so."""


@dataclass(frozen=True)
class Report:
    """Many protocols on one case.

    Attributes:
        found: name -> what it gave, in the order asked for.
        undefined: name -> why it has no numbers here.
    """

    found: Mapping[str, Measurement]
    undefined: Mapping[str, str]


def evaluate(
    name: str,
    logits: ScoreMatrix,
    targets: Targets,
    validation: tuple[ScoreMatrix, Targets] | None = None,
    train_positives: NDArray[np.integer[Any]] | None = None,
) -> dict[str, float]:
    """The numbers of one protocol.

    Args:
        name: of ``PROTOCOLS``, and names of ``TREATMENTS`` behind plus signs.
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        validation: logits and targets of images to choose thresholds on.
        train_positives: training images with each label [C].

    Returns:
        Name -> a finite number, in percent unless the protocol's definition says otherwise.

    Raises:
        MeasureError: no such protocol, it is not defined on these targets, what it needs is not
            given, the arrays do not fit, or a logit is not finite.
    """
    pair = None if validation is None else Labelled(*validation)
    case = Case(logits, targets, pair, train_positives)
    protocol = find(name)
    check(case.logits, case.targets)
    return dict(protocol.measure(case).values)


def score_all(
    predictions: Predictions, names: Sequence[str] | None = None, record: RunRecord | None = None
) -> dict[str, dict[str, float]]:
    """The numbers of many protocols on the predictions of a run.

    Args:
        predictions: as ``Store.predictions`` reads them.
        names: of protocols; None for all that differ on these targets (see ``names_for``).
        record: of the run, which knows the training positives.

    Returns:
        Protocol -> name -> number; a protocol that is not defined here is missing.

    Raises:
        MeasureError: no such protocol, the arrays do not fit, or a logit is not finite.
    """
    report = measure(Case.of_run(predictions, record), names)
    return {name: dict(found.values) for name, found in report.found.items()}


def measure(case: Case, names: Sequence[str] | None = None) -> Report:
    """Score a case under many protocols.

    Args:
        case: what is scored.
        names: of protocols; None for all that differ on this case.

    Raises:
        MeasureError: no such protocol, the arrays do not fit, or a logit is not finite.
    """
    check(case.logits, case.targets)
    found, undefined = {}, {}
    for name in names_for(case.targets) if names is None else names:
        protocol = find(name)
        try:
            found[name] = protocol.measure(case)
        except MeasureError as error:
            undefined[name] = str(error)
    return Report(found, undefined)


def find(name: str) -> Protocol:
    """The protocol of a name, with its treatments.

    Raises:
        MeasureError: naming what comes nearest, or why the two do not go together.
    """
    base, *treated = name.split("+")
    protocol = _named(base, PROTOCOLS, "protocol")
    by_kind: dict[str, str] = {}
    for part in treated:
        treatment = _named(part, TREATMENTS, "treatment")
        if treatment.kind in by_kind:
            raise MeasureError(f"{name}: treats {treatment.kind} entries twice; keep one")
        if not treatment.changes(protocol):
            raise MeasureError(
                f"{name}: {base} does not depend on {part}; it changes "
                f"{', '.join(p for p in PROTOCOLS if treatment.changes(PROTOCOLS[p]))}"
            )
        by_kind[treatment.kind] = part
        protocol = _treated(protocol, treatment)
    if not treated:
        return protocol
    ordered = "+".join([base, *(by_kind[kind] for kind in KINDS if kind in by_kind)])
    return replace(protocol, source=USERS.get(ordered, UNUSED))


def names_for(targets: Targets) -> list[str]:
    """Every protocol, and every treatment of it that may change a number on these targets.

    Where nothing is unknown, or every class has a positive once it is known, there is nothing to
    treat.

    Args:
        targets: int8 [N, C] in {1, 0, -1}.
    """
    difficult = [t for t in ALL if t.kind == "difficult"] if (targets < 0).any() else []
    # Unknown entries that count as present may leave no class without a positive.
    absent = {
        treatment: [t for t in ALL if t.kind == "absent"] if _lacking(targets, treatment) else []
        for treatment in (None, *difficult)
    }
    return [
        "+".join([protocol.name, *(t.name for t in (first, second) if t is not None)])
        for protocol in CATALOGUE
        for first in (None, *difficult)
        for second in (None, *absent[first])
        if all(t is None or t.changes(protocol) for t in (first, second))
    ]


def _lacking(targets: Targets, treatment: Treatment | None) -> bool:
    """Whether some class has no positive, unknown entries having been treated."""
    case = Case(np.zeros(targets.shape), targets)
    treated = case if treatment is None else treatment.apply(case)
    return not bool((treated.targets == 1).any(axis=0).all())


def _named(name: str, entries: Mapping[str, Entry], kind: str) -> Entry:
    if name in entries:
        return entries[name]
    near = difflib.get_close_matches(name.casefold(), entries, n=3, cutoff=0.4)
    meant = f"did you mean {', '.join(near)}? " if near else ""
    raise MeasureError(f"unknown {kind} {name!r}; {meant}`mlbench score --list` shows all")


def _treated(protocol: Protocol, treatment: Treatment) -> Protocol:
    return replace(
        protocol,
        name=f"{protocol.name}+{treatment.name}",
        definition=f"{protocol.definition} {treatment.definition}",
        measure=lambda case: protocol.measure(treatment.apply(case)),
    )
