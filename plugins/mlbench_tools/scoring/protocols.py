"""Every protocol by name: ``evaluate("ap-interpolated+difficult-negative", logits, targets)``.

A treatment behind a plus sign changes how a protocol treats unknown entries or absent classes.
Definitions and sources are in ``protocols.yaml``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlbench.files import read_yaml
from mlbench.metrics.average_precision import ScoreMatrix, average_precision, check
from mlbench.metrics.precision_recall import HALF
from mlbench.text import unknown
from mlbench.types import MeasureError, Targets
from mlbench_tools.scoring import measures, ranking
from mlbench_tools.scoring.measures import Measurement, ProtocolInput

Kind = Literal["difficult", "absent"]
KINDS: tuple[Kind, ...] = ("difficult", "absent")
"""The kinds of entries that treatments change, in the order in which a name lists treatments."""

ASL_THRESHOLD = math.log(0.8 / 0.2)
ML_DECODER_THRESHOLD = math.log(0.75 / 0.25)
"""Logits of probabilities. Their authors count scores above them, we count scores that reach them;
the two differ only for a logit that equals the threshold to its last bit."""

UNUSED = "nobody that we know of"
"""The source of a protocol with treatments that no paper combines so."""


@dataclass(frozen=True)
class Protocol:
    """A named way to score predictions.

    Attributes:
        name: its name for ``mlbench score --protocol``.
        definition: its definition, in one sentence.
        source: who defined or reports it.
        measure: checked predictions -> numbers; raises ``MeasureError`` where they are not defined.
        kinds: kinds of the treatments that change its numbers.
        version: raised whenever a change moves a number.
        oracle: True if it reads the answers of the split that it scores: then no honest number
            compares with it.
    """

    name: str
    definition: str
    source: str
    measure: Callable[[ProtocolInput], Measurement]
    kinds: Sequence[Kind]
    version: int = 1
    oracle: bool = False


@dataclass(frozen=True)
class Treatment:
    """Another way to treat entries that protocols differ on; ``PROTOCOL+TREATMENT`` names both."""

    name: str
    kind: Kind
    definition: str
    source: str
    apply: Callable[[ProtocolInput], ProtocolInput]


def _settle(value: int, given: ProtocolInput) -> ProtocolInput:
    """Set every unknown entry to ``value``, in the validation targets, too."""

    def known(targets: Targets) -> Targets:
        return np.where(targets < 0, value, targets).astype(np.int8)

    held_out = given.validation
    return replace(
        given,
        targets=known(given.targets),
        validation=None if held_out is None else (held_out[0], known(held_out[1])),
    )


_MEASURES: Mapping[str, Callable[[ProtocolInput], Measurement]] = {
    "canonical": measures.canonical,
    "ap": partial(measures.mean_ap, average_precision),
    "ap-interpolated": partial(measures.mean_ap, ranking.interpolated_average_precision),
    "ap-11-point": partial(measures.mean_ap, ranking.eleven_point_average_precision),
    "prf-0.5": partial(measures.prf, threshold=HALF),
    "prf-0.8": partial(measures.prf, threshold=ASL_THRESHOLD),
    "prf-0.75": partial(measures.prf, threshold=ML_DECODER_THRESHOLD),
    "prf-top3": partial(measures.prf, threshold=HALF, top_k=3),
    "prf-top3-any": partial(measures.prf, threshold=-math.inf, top_k=3),
    "prf-validation": measures.prf_on_validation,
    "prf-validation-by-class": measures.prf_on_validation_by_class,
    "prf-oracle": measures.prf_oracle,
    "auc": measures.auc,
    "prf-by-image": measures.prf_by_image,
    "label-ranking": measures.label_ranking,
    "hamming": measures.hamming,
    "calibration": measures.calibration,
    "groups": measures.training_groups,
    "groups-by-thirds": measures.thirds,
    "partners": measures.partners,
}
_TREATMENTS: Mapping[str, Callable[[ProtocolInput], ProtocolInput]] = {
    "difficult-negative": partial(_settle, 0),
    "difficult-positive": partial(_settle, 1),
    "absent-zero": partial(replace, absent="zero"),
    "absent-refused": partial(replace, absent="refused"),
}
_TABLES = read_yaml(Path(__file__).with_suffix(".yaml"))

PROTOCOLS: Mapping[str, Protocol] = {
    name: Protocol(name=name, measure=_MEASURES[name], **entry)
    for name, entry in _TABLES["protocols"].items()
}
"""Name -> protocol, in the order in which they are shown."""

TREATMENTS: Mapping[str, Treatment] = {
    name: Treatment(name=name, apply=_TREATMENTS[name], **entry)
    for name, entry in _TABLES["treatments"].items()
}
"""Name -> treatment; without one, unknown entries count nowhere and absent classes are left out."""

USERS: Mapping[str, str] = _TABLES["users"]
"""Protocol with its treatments, in the order of ``KINDS`` -> whose code uses exactly these."""

Entry = TypeVar("Entry", Protocol, Treatment)


def evaluate(
    name: str,
    logits: ScoreMatrix,
    targets: Targets,
    validation: tuple[ScoreMatrix, Targets] | None = None,
    train_positives: NDArray[np.integer[Any]] | None = None,
) -> dict[str, float]:
    """Compute the numbers of one protocol.

    Args:
        name: a name of ``PROTOCOLS``, then names of ``TREATMENTS`` after plus signs.
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        validation: logits and targets of images to choose thresholds on.
        train_positives: training images with each label [C].

    Returns:
        Name -> a finite number, in percent unless the protocol's definition says otherwise.

    Raises:
        MeasureError: no such protocol, it is not defined on these targets, an input that it needs
            is missing, the shapes differ, or a logit is not finite.
    """
    protocol = find(name)
    check(logits, targets)
    return dict(
        protocol.measure(ProtocolInput(logits, targets, validation, train_positives)).values
    )


def measure(
    given: ProtocolInput, names: Sequence[str] | None = None
) -> tuple[dict[str, Measurement], dict[str, str]]:
    """Score predictions under many protocols.

    Returns:
        Name -> its numbers, in the order asked for; and name -> why it has no numbers here.

    Raises:
        MeasureError: no such protocol, the shapes differ, or a logit is not finite.
    """
    check(given.logits, given.targets)
    found, undefined = {}, {}
    for name in names_for(given.targets) if names is None else names:
        protocol = find(name)
        try:
            found[name] = protocol.measure(given)
        except MeasureError as error:
            undefined[name] = str(error)
    return found, undefined


def find(name: str) -> Protocol:
    """The protocol of a name, with its treatments.

    Raises:
        MeasureError: a name is unknown, or the treatments do not go together.
    """
    base, *treated = name.split("+")
    protocol = _named(base, PROTOCOLS, "protocol")
    by_kind: dict[str, str] = {}
    for part in treated:
        treatment = _named(part, TREATMENTS, "treatment")
        kind = treatment.kind
        if kind in by_kind:
            raise MeasureError(f"{name}: treats {kind} entries twice; keep one")
        if kind not in protocol.kinds:
            changed = ", ".join(p for p in PROTOCOLS if kind in PROTOCOLS[p].kinds)
            raise MeasureError(f"{name}: {base} does not depend on {part}; it changes {changed}")
        by_kind[kind] = part
        protocol = replace(
            protocol,
            name=f"{protocol.name}+{part}",
            definition=f"{protocol.definition} {treatment.definition}",
            measure=partial(_measure_treated, protocol.measure, treatment),
        )
    if not treated:
        return protocol
    ordered = "+".join([base, *(by_kind[kind] for kind in KINDS if kind in by_kind)])
    return replace(protocol, source=USERS.get(ordered, UNUSED))


def _measure_treated(
    measure: Callable[[ProtocolInput], Measurement], treatment: Treatment, given: ProtocolInput
) -> Measurement:
    treated = treatment.apply(given)
    check(treated.logits, treated.targets)
    return measure(treated)


def names_for(targets: Targets) -> list[str]:
    """Every protocol, and every treatment of it that may change a number on these targets.

    Without unknown entries and without absent classes there is nothing to treat. Unknown entries
    that count as present may leave no class absent.

    Args:
        targets: int8 [N, C] in {1, 0, -1}.
    """
    by_kind = {kind: [t for t in TREATMENTS.values() if t.kind == kind] for kind in KINDS}
    suffixes: list[tuple[Treatment, ...]] = []
    given = ProtocolInput(np.zeros(targets.shape), targets)
    for difficult in [(), *((t,) for t in by_kind["difficult"] if (targets < 0).any())]:
        treated = difficult[0].apply(given) if difficult else given
        suffixes.append(difficult)
        if treated.absent_classes().any():
            suffixes += [(*difficult, treatment) for treatment in by_kind["absent"]]
    return [
        "+".join([protocol.name, *(treatment.name for treatment in suffix)])
        for protocol in PROTOCOLS.values()
        for suffix in suffixes
        if all(treatment.kind in protocol.kinds for treatment in suffix)
    ]


def _named(name: str, entries: Mapping[str, Entry], kind: str) -> Entry:
    if name not in entries:
        raise MeasureError(unknown(f"{kind} {name!r}", name, entries))
    return entries[name]
