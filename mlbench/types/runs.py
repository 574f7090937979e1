"""A run as plain data: its request, its progress, and its results."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from mlbench.types.literals import Graph, Precision, Tier, Track
from mlbench.types.models import Pretraining
from mlbench.types.samples import Coverage, KnownLabels, LabelNoise
from mlbench.types.settings import Amount, Percent, Seed, Settings, Time, Value

# ------------------------------------------------------------------------------------ the request
ADDED: dict[str, Any] = {
    "processes": 1,
    "settings.ema_warmup": False,
    "settings.grad_accumulation": 1,
    "init": "",
    "holdout_fold": 0,
    "settings.mixing": None,
    "known_labels": KnownLabels().model_dump(),
    "settings.compile": False,
}
"""Dotted name of a field of ``RunSpec`` that is newer than some records -> its implicit value in
these. Run ids omit a field with this value, and a stored spec without the field has this value,
whatever the default is today."""
IMPORTED = "imported:"
"""Prefix of ``data`` for a model that others trained; the digest of their file follows."""
NO_CHECKPOINT = "no checkpoint was kept"
"""Prefix of the note that says why a record has no checkpoint."""
NO_COSTS = "its costs were not measured for want of memory"
"""The note of a record with scores that has no costs."""


class RunSpec(Value):
    """The request of one run: everything that changes its numbers, and nothing else.

    Attributes:
        method: name of the recipe, or of a head without one.
        dataset: plugin name; ``dataset_options`` go to its factory.
        data: digest of labels, keys and targets of both splits and of a sample of the image files
            (see ``Splits.digest``).
        labels: the labels that take part; None for all.
        holdout: fraction of the training split that is scored instead of the test split, and not
            trained on, to choose settings; 0 for none.
        holdout_fold: number of the held-out part; parts do not overlap.
        incomplete: unusable images are left out; ``data`` is the digest of the rest.
        words: source of the label embeddings: ``cooccurrence``, ``random`` (drawn with ``seed``)
            or ``sha256:...`` of a file.
        graph: source of the heads' label graph; ``random`` is drawn with ``seed``.
        label_noise: training labels that are missing or wrong on purpose.
        known_labels: labels of the test images that the head receives.
        checkpoint: ``sha256:...`` of the authors' weights that were scored without training;
            empty for a run that trains.
        init: ``sha256:...`` of the model file that the run starts from (see ``build.start_from``);
            its backbone takes the place of ``settings.weights``. Empty for none.
        processes: number of processes; the last digits of gradients depend on it.
    """

    method: str
    dataset: str
    dataset_options: dict[str, Any] = {}
    data: str
    labels: tuple[str, ...] | None = None
    holdout: float = Field(0.0, ge=0, lt=1)
    holdout_fold: NonNegativeInt = 0
    incomplete: bool = False
    track: Track
    seed: Seed = 0
    precision: Precision = "fp32"
    words: str = "cooccurrence"
    graph: Graph = "cooccurrence"
    label_noise: LabelNoise = LabelNoise()
    known_labels: KnownLabels = KnownLabels()
    checkpoint: str = Field("", pattern=r"^(sha256:[0-9a-f]+)?$")
    init: str = Field("", pattern=r"^(sha256:[0-9a-f]+)?$")
    processes: PositiveInt = 1
    settings: Settings

    @property
    def title(self) -> str:
        """Method, data set, backbone, loss and seed of the run, in words."""
        made_of = f"{self.settings.backbone}, {self.settings.loss}, seed {self.seed}"
        return f"{self.method} on {self.dataset} ({made_of})"

    def trained_by(self, processes: int) -> RunSpec:
        """A copy for this number of processes, which is 1 if nothing is trained."""
        return self.model_copy(update={"processes": processes if self.settings.epochs else 1})

    @property
    def configuration(self) -> str:
        """The run id with seed 0; runs that differ in their seed alone share it."""
        return self.model_copy(update={"seed": 0}).run_id

    @property
    def cached_for(self) -> str:
        """The purpose of the cache entries that the run reads."""
        return f"{self.dataset} at {self.settings.image_size}"

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, fields: Any) -> Any:
        for name, before in ADDED.items():
            fields = _set_missing(fields, name, before)
        return fields

    def canonical(self) -> dict[str, Any]:
        """The parts of the spec that decide the numbers, as plain data with all defaults.

        Fields of ``ADDED`` at their values and the path of a user's own data set are omitted.
        """
        plain = self.model_dump(mode="json")
        plain["dataset"] = self.dataset.partition(":")[0]
        for name, before in ADDED.items():
            *path, last = name.split(".")
            owner = functools.reduce(dict.__getitem__, path, plain)
            if owner[last] == before:
                del owner[last]
        return plain

    @property
    def run_id(self) -> str:
        """16 hex digits of the SHA-256 of ``canonical``."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _set_missing(fields: Any, name: str, value: Any) -> Any:
    """A copy of nested mappings in which a missing dotted name has this value."""
    if not isinstance(fields, dict):
        return fields
    first, _, rest = name.partition(".")
    if not rest:
        return {first: value} | fields
    return fields | {first: _set_missing(fields[first], rest, value)} if first in fields else fields


# ----------------------------------------------------------------------------------- its progress
class EpochLog(Value):
    """One epoch of training.

    Attributes:
        loss: mean over the epoch, including the extra losses ``aux``.
        grad_norm: largest gradient norm before clipping.
        lr: the head's learning rate at the first step; those of the backbone and of biases are
            fixed multiples of it.
        mAP: percent, on the split by which the epoch is selected; None if no epoch is selected or
            a logit is not finite.
    """

    epoch: PositiveInt
    loss: float
    aux: dict[str, float] = {}
    grad_norm: float | None = None
    lr: Amount
    seconds: Amount
    images_per_second: Amount
    mAP: Percent | None = None  # noqa: N815


class Progress(Protocol):
    """Receives the progress of a run; only the leading process shows it."""

    def phase(self, text: str) -> None:
        """A phase other than training begins."""

    def count(self, done: int, total: int) -> None:
        """``done`` of ``total`` items of the phase are done."""

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """``step`` of ``steps`` (from 1) is done; ``speed`` in images per second."""

    def epoch(self, log: EpochLog) -> None:
        """An epoch is done."""


# ------------------------------------------------------------------------------------ its results
class Efficiency(Value):
    """The cost of inference. GMACs are 1e9 multiply-accumulates per image (half of FLOPs).

    Attributes:
        latency: always empty; speed is measured separately (``ModelCost``).
        backbone_options: options of the backbone's factory that give the same architecture.
    """

    parameters_backbone: NonNegativeInt
    parameters_head: NonNegativeInt
    gmacs_backbone: Amount
    gmacs_head: Amount
    latency: tuple[dict[str, Any], ...] = ()
    peak_memory_mb: Amount
    image_size: PositiveInt
    precision: Precision
    device: str
    threads: PositiveInt
    versions: dict[str, str]
    backbone_options: dict[str, Any] | None = None


class PhaseResources(Value):
    """Memory and energy of a phase of a run; None for values that could not be measured.

    Attributes:
        memory_mb: peak MiB of the leading process's whole memory; for ``efficiency``, during the
            measured call.
        device_memory_mb: peak MiB of its tensors on its CUDA device; likewise.
        joules: energy of the whole device, including whatever else ran on it.
    """

    memory_mb: Amount | None = None
    device_memory_mb: Amount | None = None
    joules: Amount | None = None


class Scores(Value):
    """Scores of the canonical protocol in percent; see benchmarks/README.md for definitions.

    ``mAP_low`` and ``mAP_high`` bound the 95 % bootstrap interval over images. It is centred on
    mAP, so it may extend beyond [0, 100].
    """

    mAP: Percent  # noqa: N815
    mAP_low: FiniteFloat  # noqa: N815
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


class RunRecord(Value):
    """The results of a run; written once.

    Attributes:
        identity: name of the data's edition (see ``Splits``).
        error: how and at which step the run diverged, if ``status`` is ``diverged``.
        label_names: C names, the columns of the predictions.
        average_precision: percent per label; None if no positive or no negative is known in test.
        train_images: number of training images without the validation images.
        validation_images: number of training images that only select the epoch.
        selected_epoch: from 1; None if the last epoch was scored without a selection.
        coverage: usable images of the data.
        train_positives: number of training images with each label, after label noise; None for
            checkpoints that were only scored.
        commit: git commit of the code when the run began, with ``-dirty`` appended if tracked files
            had changed.
        numbers: version of the numbers of the core and each plugin (see ``mlbench.numbers``):
            ``{"core": 2, "head gap": 1}``.
        sources: digests of the source files of the packages used (``numbers.sources_of``).
        command: the command line.
        started: time of the start; the newest record of a run counts.
        added: time at which ``mlbench verify --into`` added the record to the store; empty if the
            store's owner ran it.
        recipe_rate: whether the recipe names the learning rate for the track (``Recipe.tuned``).
        pretraining: pretraining of the initial weights; None for the authors' checkpoints.
        resources: memory and energy of each phase, in the process that ended the run.
        resumed: the steps after which the run resumed in another process.
        predictions_sha256: SHA-256 of each array of the predictions and of their list (see
            ``mlbench.evidence``); empty without predictions.
        digest: SHA-256 of the canonical JSON of all other fields; empty until it is written.
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
    started: Time
    seconds: dict[str, Amount]
    command: str
    commit: str | None
    numbers: dict[str, NonNegativeInt]
    sources: str | None = None
    notes: tuple[str, ...] = ()
    validation_images: NonNegativeInt = 0
    selected_epoch: PositiveInt | None = None
    coverage: Coverage | None = None
    train_positives: tuple[NonNegativeInt, ...] | None = None
    added: Time | Literal[""] = ""
    recipe_rate: bool = False
    pretraining: Pretraining | None = None
    resources: dict[str, PhaseResources] = {}
    resumed: tuple[NonNegativeInt, ...] = ()
    predictions_sha256: dict[str, str] = {}
    digest: str = ""

    @property
    def first_weights_share(self) -> float:
        """Weight of the state after the first step in the scored moving average."""
        settings = self.spec.settings
        epochs = self.selected_epoch or settings.epochs
        trained = not self.spec.checkpoint
        return settings.first_weights_share(self.train_images, epochs) if trained else 0.0

    @property
    def tier(self) -> Tier:
        """Whether the run trained, or published weights were scored; tiers are ranked apart."""
        return "re-scored" if self.spec.checkpoint else "own"

    @property
    def began(self) -> datetime:
        """``started`` as a time; UTC if it has no zone."""
        return _as_time(self.started)

    @property
    def appeared(self) -> datetime:
        """The time at which the store received the record."""
        return _as_time(self.added or self.started)

    @property
    def complete(self) -> bool:
        """Whether the run used all images of a known edition of its data."""
        return re.search(r"-(unknown|images|incomplete)-[0-9a-f]{16}", self.identity) is None


def _as_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
