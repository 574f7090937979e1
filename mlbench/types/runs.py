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
"""Dotted name of a field of ``RunSpec`` that was added after records were made -> the value that
stood for it before. A field at this value is left out of run ids, and a stored spec without the
field has this value, whatever the default is today."""
IMPORTED = "imported:"
"""Begins ``data`` of a model that others trained; the digest of their file follows."""
NO_CHECKPOINT = "no checkpoint was kept"
"""Begins a record's note of why."""


class RunSpec(Value):
    """The request of one run: everything that changes its numbers, and nothing else.

    Attributes:
        method: name of the recipe, or of a head without one.
        dataset: plugin name; ``dataset_options`` go to its factory.
        data: digest of labels, keys and targets of both splits and of a sample of the image files
            (see ``Splits.digest``).
        labels: the labels that take part; None for all.
        holdout: share of the training split that is scored instead of the test split and not
            trained on, for choosing settings; 0 for none.
        holdout_fold: which part of this size it is; parts do not overlap.
        incomplete: unusable images are left out; ``data`` is the digest of the rest.
        words: source of the label embeddings: ``cooccurrence``, ``random`` (drawn with ``seed``)
            or ``sha256:...`` of a file.
        graph: what heads build their label graph from; ``random`` is drawn with ``seed``.
        label_noise: training labels that are missing or wrong on purpose.
        known_labels: labels of the test images that the head is told.
        checkpoint: ``sha256:...`` of the authors' weights that were scored without training;
            empty for a run that trains.
        init: ``sha256:...`` of the model file that the run starts from (see ``build.start_from``);
            its backbone takes the place of ``settings.weights``. Empty for none.
        processes: that train together; the last digits of gradients depend on their number.
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
        """The run in a few words."""
        made_of = f"{self.settings.backbone}, {self.settings.loss}, seed {self.seed}"
        return f"{self.method} on {self.dataset} ({made_of})"

    def trained_by(self, processes: int) -> RunSpec:
        """The run in several processes, whose number counts where something is trained."""
        return self.model_copy(update={"processes": processes if self.settings.epochs else 1})

    @property
    def configuration(self) -> str:
        """The run id with seed 0: equal for runs that differ in their seed alone."""
        return self.model_copy(update={"seed": 0}).run_id

    @property
    def cached_for(self) -> str:
        """What the entries of the cache that the run reads are for."""
        return f"{self.dataset} at {self.settings.image_size}"

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, fields: Any) -> Any:
        for name, before in ADDED.items():
            fields = _set_missing(fields, name, before)
        return fields

    def canonical(self) -> dict[str, Any]:
        """The spec as plain data, as far as it decides the numbers; defaults are in it.

        Left out are fields of ``ADDED`` at their values, and the path of a user's own data set.
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
    """A copy of nested mappings with a value under this dotted name, unless there is one."""
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
        loss: mean over the epoch, the extra losses ``aux`` included.
        grad_norm: largest before clipping.
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
    """Receives the progress of a run; only that of the leading process shows it."""

    def stage(self, text: str) -> None:
        """A stage other than training begins."""

    def count(self, done: int, total: int) -> None:
        """How far the stage has come."""

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """``step`` of ``steps`` (from 1) is done; ``speed`` in images per second."""

    def epoch(self, log: EpochLog) -> None:
        """An epoch is done."""


# ------------------------------------------------------------------------------------ its results
class Efficiency(Value):
    """The cost of inference. GMACs are 1e9 multiply-accumulates per image (half of FLOPs).

    Attributes:
        latency: always empty; speed is measured apart (``ModelCost``).
        backbone_options: with which the backbone's factory builds the same architecture.
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
    """What a phase of a run took, besides its seconds; None is what could not be measured.

    Attributes:
        memory_mb: the most MiB that the leading process had in memory, all that it loaded included;
            of ``efficiency``, while it measured a call.
        device_memory_mb: the most MiB that its tensors took on its CUDA device; likewise.
        joules: of the whole device, and of what else ran on it.
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
        error: if ``status`` is ``diverged``, what happened at which step.
        label_names: C names, the columns of the predictions.
        average_precision: percent per label; None if no positive or no negative is known in test.
        train_images: without the validation images.
        validation_images: number of training images split off to select the epoch by.
        selected_epoch: from 1; None if the last epoch was scored without a selection.
        coverage: of the data.
        train_positives: training images with each label, after label noise; None for checkpoints
            that were only scored.
        commit: git commit of the code when the run began, with ``-dirty`` appended if tracked files
            of it were changed.
        numbers: which version of the numbers the core and each plugin made (see
            ``mlbench.numbers``): ``{"core": 2, "head gap": 1}``.
        sources: digests of the source files of the packages used (``numbers.sources_of``).
        command: the command line.
        started: the newest record of a run counts.
        added: when ``mlbench verify --into`` added it to the store; empty if the store's owner
            ran it.
        recipe_rate: whether the recipe names the learning rate for the track (``Recipe.tuned``).
        pretraining: of the initial weights; None for checkpoints of the authors.
        resources: what each phase took (see ``seconds``), in the process that ended the run.
        resumed: the steps after which the run went on in another process.
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
        """Share of the scored moving average that is the weights after the first step."""
        settings = self.spec.settings
        epochs = self.selected_epoch or settings.epochs
        trained = not self.spec.checkpoint
        return settings.first_weights_share(self.train_images, epochs) if trained else 0.0

    @property
    def tier(self) -> Tier:
        """Whose training was scored; tiers are never ranked together."""
        return "re-scored" if self.spec.checkpoint else "own"

    @property
    def began(self) -> datetime:
        """``started`` as a time; UTC if it has no zone."""
        return _as_time(self.started)

    @property
    def appeared(self) -> datetime:
        """When the store received it."""
        return _as_time(self.added or self.started)

    @property
    def complete(self) -> bool:
        """Whether the run used all images of a known edition of its data."""
        return re.search(r"-(unknown|images|incomplete)-[0-9a-f]{16}", self.identity) is None


def _as_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
