"""What a protocol is: a name, a version, a definition, and a function from a case to numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix
from mlbench.types import Targets

Absent = Literal["left out", "zero", "refused"]
Family = Literal["canonical", "AP", "P/R/F1", "AUC", "image", "calibration", "groups", "partners"]


class Labelled(NamedTuple):
    """Logits [N, C] of some images and their targets int8 [N, C] in {1, 0, -1}."""

    logits: ScoreMatrix
    targets: Targets


@dataclass(frozen=True)
class Case:
    """What is scored.

    Attributes:
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}, with some positive.
        validation: images that the model was neither trained on nor is scored on, for choosing
            thresholds; None where there are none.
        train_positives: training images with each label [C]; None where that is not known.
        absent: what becomes of classes without a positive in means over classes.
    """

    logits: ScoreMatrix
    targets: Targets
    validation: Labelled | None = None
    train_positives: NDArray[np.integer[Any]] | None = None
    absent: Absent = "left out"


@dataclass(frozen=True)
class Measurement:
    """What a protocol gives.

    Attributes:
        values: name -> a number, never NaN; in percent unless the protocol says otherwise.
        by_label: name -> a number a label [C], NaN where it is not defined; or words; or, as whole
            numbers, another label by its column, -1 for none.
        curves: name -> numbers [bins], to be drawn together.
    """

    values: Mapping[str, float]
    by_label: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    curves: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """A named way to score predictions.

    Attributes:
        name: as ``mlbench score --protocol`` takes it.
        family: protocols that answer one question.
        definition: in one sentence.
        source: who defined or reports it.
        measure: a checked case -> numbers; raises ``MeasureError`` where they are not defined.
        version: counted up whenever a change of it moves a number.
        oracle: it reads the answers of the split that it scores, so that no honest number stands
            beside it.
    """

    name: str
    family: Family
    definition: str
    source: str
    measure: Callable[[Case], Measurement]
    version: int = 1
    oracle: bool = False


@dataclass(frozen=True)
class Treatment:
    """Another way to treat entries that protocols differ on; ``PROTOCOL+TREATMENT`` names both.

    Attributes:
        kind: of one kind a protocol takes one at most.
        families: of the protocols that it changes; None for all but the canonical one.
        apply: the case as it is to be measured.
    """

    name: str
    kind: Literal["difficult", "absent"]
    definition: str
    source: str
    apply: Callable[[Case], Case]
    families: tuple[Family, ...] | None = None

    def changes(self, protocol: Protocol) -> bool:
        """Whether the protocol depends on what is treated."""
        if self.families is None:
            return protocol.family != "canonical"
        return protocol.family in self.families
