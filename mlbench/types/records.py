"""A run as plain data: what it tells while it goes on, and what it found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field, FiniteFloat, NonNegativeInt, PositiveInt

from mlbench.types.data import Coverage
from mlbench.types.runs import RunSpec
from mlbench.types.values import Precision, Targets, Tier, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
"""Of anything that there cannot be less than none of: seconds, GMACs, MiB."""


def _moment(text: str) -> str:
    """A date and time, which orders the store's history."""
    datetime.fromisoformat(text)
    return text


def _in_utc(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Moment = Annotated[str, AfterValidator(_moment)]


class Latency(Value):
    """Milliseconds a batch after warm-up."""

    batch_size: PositiveInt
    median_ms: Amount
    p95_ms: Amount
    images_per_second: Amount


class Efficiency(Value):
    """What inference costs. GMACs are 1e9 multiply-accumulates (half of torch's FLOPs) an image."""

    parameters_backbone: NonNegativeInt
    parameters_head: NonNegativeInt
    gmacs_backbone: Amount
    gmacs_head: Amount
    latency: tuple[Latency, ...]
    peak_memory_mb: Amount
    image_size: PositiveInt
    precision: Precision
    device: str
    threads: PositiveInt
    versions: dict[str, str]


class Scores(Value):
    """The canonical protocol's numbers, in percent; definitions stand in benchmarks/README.md.

    The interval is centred on mAP, and may reach beyond what a score can be.
    """

    mAP: Percent  # noqa: N815 - the field's own spelling
    mAP_low: FiniteFloat  # noqa: N815 - bounds of the 95 % bootstrap interval over images
    mAP_high: FiniteFloat  # noqa: N815
    CP: Percent
    CR: Percent
    CF1: Percent
    OP: Percent
    OR: Percent
    OF1: Percent
    top3_CP: Percent  # noqa: N815
    top3_CR: Percent  # noqa: N815
    top3_CF1: Percent  # noqa: N815
    top3_OP: Percent  # noqa: N815
    top3_OR: Percent  # noqa: N815
    top3_OF1: Percent  # noqa: N815
    classes_scored: NonNegativeInt
    classes_left_out: NonNegativeInt


class EpochLog(Value):
    """One epoch: mean losses, largest gradient norm before clipping, images a second.

    ``aux`` are the means of the extra losses in ``loss``; ``lr`` is the head's learning rate at the
    first step of the epoch, which those of backbone and biases are fixed multiples of. ``mAP`` in
    percent is of the split that the epoch to score is chosen on; None where none is chosen, or
    where a logit was not finite.
    """

    epoch: PositiveInt
    loss: float
    aux: dict[str, float] = {}
    grad_norm: float | None = None
    lr: Amount
    seconds: Amount
    images_per_second: Amount
    mAP: Percent | None = None  # noqa: N815 - the field's own spelling


class Progress(Protocol):
    """Who wants to know how a run gets on; every process but the leader is given a silent one."""

    def stage(self, text: str) -> None:
        """Something other than training has begun."""
        ...

    def count(self, done: int, total: int) -> None:
        """How far the stage has come."""
        ...

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """Steps of an epoch (from 0) are done; ``speed`` in images a second."""
        ...

    def epoch(self, log: EpochLog) -> None:
        """An epoch is done."""
        ...


class RunRecord(Value):
    """What a run found; written once.

    Attributes:
        identity: name of the data's edition (``coco-mini``), or ``<dataset>-unknown-<digest>``.
        status: ``ok``, or ``diverged`` with ``error`` saying at which step.
        label_names: C names, the columns of the predictions.
        average_precision: percent per label, None where the test split has no positive.
        train_images: that were trained on.
        train_positives: of them, those with each label, as the model saw them (after label noise);
            in the order of ``label_names``. None in records that are older than this field, and of
            checkpoints that were only scored.
        validation_images: that were cut off train to choose the epoch by; 0 where it was not.
        selected_epoch: from 1; None where the last was taken as it was.
        coverage: of the data; None in records that are older than this field.
        commit: git commit of the code, ``-dirty`` appended when the tree was.
        command: the command line that made it.
        started: when, in ISO 8601; the newest record of a run is the one that counts.
        added: when ``mlbench verify --into`` took it into the store; empty where it was made there.
    """

    run_id: str
    spec: RunSpec
    identity: str
    status: Literal["ok", "diverged"]
    error: str | None = None
    scores: Scores | None = None
    label_names: tuple[str, ...]
    average_precision: tuple[Percent | None, ...] = ()
    train_images: NonNegativeInt
    test_images: NonNegativeInt
    efficiency: Efficiency | None = None
    epochs: tuple[EpochLog, ...] = ()
    checkpoint: str | None = None
    environment: dict[str, Any]
    started: Moment
    seconds: dict[str, Amount]
    command: str
    commit: str | None
    notes: tuple[str, ...] = ()
    validation_images: NonNegativeInt = 0
    selected_epoch: PositiveInt | None = None
    coverage: Coverage | None = None
    train_positives: tuple[NonNegativeInt, ...] | None = None
    added: Moment | Literal[""] = ""

    @property
    def tier(self) -> Tier:
        """Whose training the scores are of; tiers are never ranked together."""
        return "re-scored" if self.spec.checkpoint else "own"

    @property
    def began(self) -> datetime:
        """When it was started; a time without a zone is UTC."""
        return _in_utc(self.started)

    @property
    def appeared(self) -> datetime:
        """Since when the store has it."""
        return _in_utc(self.added or self.started)

    @property
    def complete(self) -> bool:
        """Whether the run is on a known edition of its data with none of its images left out."""
        return re.search(r"-(unknown|incomplete)-[0-9a-f]{16}", self.identity) is None


@dataclass(frozen=True)
class Predictions:
    """Logits float32 [N, C] on the test split with their keys [N] and targets int8 [N, C].

    ``validation`` holds the same of the validation split, if the run had one: what thresholds may
    be chosen on.
    """

    logits: NDArray[np.float32]
    targets: Targets
    keys: tuple[str, ...]
    validation: Predictions | None = None
