"""What a protocol is: a name, a version, a definition, and a function from a case to numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix
from mlbench.types import Predictions, RunRecord, Targets

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
        names: of the labels [C], for messages; None where they are not known.
    """

    logits: ScoreMatrix
    targets: Targets
    validation: Labelled | None = None
    train_positives: NDArray[np.integer[Any]] | None = None
    absent: Absent = "left out"
    names: tuple[str, ...] | None = None

    @classmethod
    def of_run(cls, predictions: Predictions, record: RunRecord | None = None) -> Case:
        """What a run left.

        Args:
            predictions: as ``Store.predictions`` reads them.
            record: of the run; without it nothing is known of its training.
        """
        held_out = predictions.validation
        known = None if record is None else record.train_positives
        return cls(
            predictions.logits,
            predictions.targets,
            None if held_out is None else Labelled(held_out.logits, held_out.targets),
            None if known is None else np.array(known, np.int64),
            names=None if record is None else record.label_names,
        )

    def label(self, place: int) -> str:
        """What a message calls a label: its name, or the place of its column."""
        return f"class {place}" if self.names is None else repr(self.names[place])


@dataclass(frozen=True)
class Measurement:
    """What a protocol gives.

    Attributes:
        values: name -> a number, never NaN; in percent unless the protocol says otherwise.
        by_label: name -> a number per label [C], NaN where it is not defined; or words; or, as
            whole numbers, another label by its column, -1 for none.
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
