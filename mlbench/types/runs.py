"""A run as plain data: what it is asked, and what it found."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from mlbench.types.data import Coverage
from mlbench.types.settings import Settings
from mlbench.types.values import Graph, Precision, Targets, Tier, Track, Value

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


class LabelNoise(Value):
    """What is missing or wrong in the TRAIN labels on purpose (see ``mlbench.data.noise``).

    Attributes:
        keep: the share of the labels that stay known, in (0, 1].
        single_positive: of each image one positive label, drawn at random, is all that is known.
        assume_negative: labels that are not kept are taken to be absent, instead of unknown.
        flip: the share of the labels that are turned into their opposite, in [0, 1).
        flip_which: which labels that may happen to: ``any``, ``present`` or ``absent`` ones.
        seed: of the draws. It is not the run's seed, so that runs of several see the same labels.
    """

    keep: float = Field(1.0, gt=0, le=1)
    single_positive: bool = False
    assume_negative: bool = False
    flip: float = Field(0.0, ge=0, lt=1)
    flip_which: Literal["any", "present", "absent"] = "any"
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _makes_sense(self) -> LabelNoise:
        partial = self.keep < 1 or self.single_positive
        if self.keep < 1 and self.single_positive:
            raise ValueError("keep and single_positive exclude each other; give one of them")
        if self.assume_negative and not partial:
            raise ValueError("assume_negative needs keep or single_positive; all labels are known")
        if self.flip_which != "any" and not self.flip:
            raise ValueError("flip_which needs flip; no label is flipped")
        if self.seed and not (partial or self.flip):
            raise ValueError("seed needs keep, single_positive or flip; nothing is drawn")
        return self


class RunSpec(Value):
    """One run as plain data: everything that changes its numbers, and nothing else.

    Attributes:
        method: name of the recipe, or of a head without one.
        dataset: plugin name; ``dataset_options`` go to its factory.
        data: digest of the keys and targets of both splits (see ``digest``).
        labels: the labels that take part, None for all.
        holdout: this part of the training split is scored instead of the test split, and not
            trained on: for choosing settings. 0 trains on all and scores the test split.
        incomplete: images that cannot be used are left out; ``data`` is of those that remain.
        words: where the label embeddings come from: ``cooccurrence``, ``random`` (drawn with the
            run's seed) or ``sha256:...`` of a file.
        graph: what heads make their label graph of; ``random`` is drawn with the run's seed.
        label_noise: what is missing or wrong in the training labels on purpose.
        checkpoint: ``sha256:...`` of the authors' weights that were scored instead of training;
            empty for a run.
    """

    method: str
    dataset: str
    dataset_options: dict[str, Any] = {}
    data: str
    labels: tuple[str, ...] | None = None
    holdout: float = Field(0.0, ge=0, lt=1)
    incomplete: bool = False
    track: Track
    seed: NonNegativeInt = 0
    precision: Precision = "fp32"
    words: str = "cooccurrence"
    graph: Graph = "cooccurrence"
    label_noise: LabelNoise = LabelNoise()
    checkpoint: str = Field("", pattern=r"^(sha256:[0-9a-f]+)?$")
    settings: Settings

    @property
    def run_id(self) -> str:
        """16 hex digits of the hash of the canonical JSON; fields at their default are left out,
        so that a field added later never renames old evidence.
        """  # noqa: D205
        plain = self.model_dump(mode="json", exclude_defaults=True)
        canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Places(Value):
    """Where a run finds and leaves files; none of it changes a number.

    Attributes:
        data: folder given by ``--data``.
        weights: file given by ``--weights``, None for ``default`` and ``none``.
        words: file given by ``--words``.
        results: the store.
        cache: synthetic images, checked files, feature maps of the probe track.
        checkpoints: whether the trained model is kept.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        workers: data loading threads a process.
    """

    data: Path | None = None
    weights: Path | None = None
    words: Path | None = None
    results: Path
    cache: Path
    device: str = "cpu"
    workers: NonNegativeInt = 2
    checkpoints: bool = True


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


class RunRecord(Value):
    """What a run found; written once.

    Attributes:
        identity: name of the data's edition (``coco-mini``), or ``<dataset>-unknown-<digest>``.
        status: ``ok``, or ``diverged`` with ``error`` saying at which step.
        label_names: C names, the columns of the predictions.
        average_precision: percent a label, None where the test split has no positive.
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
