"""The vocabulary: the values that every part of mlbench exchanges, and the contracts of plugins.

Shape letters, in docstrings and as name suffixes in model code (``x_BDHW``): B images, C labels,
D channels, H and W a map's rows and columns, N = H*W positions, E the width of a word vector,
L levels of a backbone.

This module imports no torch: tensors appear in annotations only.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "test"]
Track = Literal["published", "controlled", "probe"]
Precision = Literal["fp32", "bf16", "fp16"]
Targets = NDArray[np.int8]
"""Label matrix [N, C]: 1 present, 0 absent, -1 unknown (VOC's difficult, partial labels)."""


# --------------------------------------------------------------------------------------- errors
class MlbenchError(Exception):
    """Something a user can mend; its text says what was wrong, where, and what to do."""


class PluginError(MlbenchError):
    """A plugin is unknown, broken, in conflict with another, or cannot serve a case."""


class DataError(MlbenchError):
    """A data set's files are missing, malformed or not what they should be."""


class SuiteError(MlbenchError):
    """The matrix that was asked for makes no sense."""


class WeightsError(MlbenchError):
    """Weights are missing or do not fit the model."""


class StoreError(MlbenchError):
    """A result could not be written or read."""


class MeasureError(MlbenchError):
    """A measurement would have been wrong, so none is given."""


class DivergedError(MlbenchError):
    """The training loss stopped being finite."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(
            f"the training loss became {value} at step {step}; "
            "try a lower learning rate, gradient clipping, or another precision"
        )
        self.step = step


class Value(BaseModel):
    """A frozen value; a field it does not know is an error."""

    # An infinite gradient norm must not become null, which could not be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


# ----------------------------------------------------------------------------------------- data
class Sample(NamedTuple):
    """One image: its file, its label vector int8 [C] and a key that is unique in the data set."""

    file: Path
    target: NDArray[np.int8]
    key: str


@dataclass(frozen=True)
class Index(Sequence[Sample]):
    """The samples of one split, held as one label matrix so that workers can share it.

    Attributes:
        files: N image files.
        keys: N keys, unique.
        targets: int8 [N, C] in {1, 0, -1 unknown}.
    """

    files: Sequence[Path]
    keys: Sequence[str]
    targets: Targets

    def __post_init__(self) -> None:
        if not (len(self.files) == len(self.keys) == len(self.targets)):
            raise DataError(
                f"an index of {len(self.files)} files has {len(self.keys)} keys and "
                f"{len(self.targets)} label vectors; the three must be as many"
            )

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, i: int) -> Sample: ...
    @overload
    def __getitem__(self, i: slice) -> Index: ...
    def __getitem__(self, i: int | slice) -> Sample | Index:
        if isinstance(i, slice):
            return Index(self.files[i], self.keys[i], self.targets[i])
        return Sample(self.files[i], self.targets[i], self.keys[i])

    def select(self, columns: Sequence[int]) -> Index:
        """The same images with only these labels, in this order."""
        return Index(self.files, self.keys, np.ascontiguousarray(self.targets[:, list(columns)]))


class SplitCard(Value):
    """What a split must hold: how many images, and how many positives over all of its labels."""

    images: PositiveInt
    positives: PositiveInt | None = None


class Archive(Value):
    """A file that a data set is published as: a tar, compressed or not, or a zip.

    Attributes:
        name: the official file name; a mirror holds it under this name.
        url: where it is to be had, None where terms or a dead link forbid to fetch it.
        sha256: of the whole file, None where nobody has published or checked it.
        bytes: its exact size, None where it is not known for certain.
        unpacked_bytes: more than this is never unpacked of it; a round number above the true size.
        into: the folder that it is unpacked in, relative to the root.
    """

    name: str
    url: str | None
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    bytes: PositiveInt | None = None
    unpacked_bytes: PositiveInt
    into: str = "."


class DatasetCard(Value):
    """What a data set is.

    Attributes:
        title: its name in prose.
        bibtex: how to cite it.
        licence: under which terms it may be used.
        home: its home page.
        family: what recipes call this data set together with others that differ in their images
            only (``coco`` for every year of it); its own name counts first. It is read before the
            data set is opened, from the attribute ``card`` of the factory.
        labels: how many labels it must have.
        orders: an order of the labels in circulation -> all of them in it; ``official`` is the
            order of the columns.
        splits: the official sizes of ``train`` and ``test`` (and of others that it has).
        identities: digest (see ``digest``) -> name of a known edition, e.g. ``coco-mini``.
        budget: settings that are the same for every method in the controlled and probe tracks.
        notes: what a reader of its numbers must know.
        archives: the files that it is published as.
        steps: what a person must do where they cannot be fetched, in plain words.
    """

    title: str
    bibtex: str
    licence: str
    home: str
    family: str = ""
    labels: PositiveInt | None = None
    orders: dict[str, tuple[str, ...]] = {}
    splits: dict[str, SplitCard] = {}
    identities: dict[str, str] = {}
    budget: dict[str, Any] = {}
    notes: str = ""
    archives: tuple[Archive, ...] = ()
    steps: str = ""


class Dataset(ABC):
    """From official files to samples. Decodes no image.

    A factory of data sets is called as ``factory(root, cache, **options)``: ``root`` is the folder
    that ``--data`` names (None if it was not given), ``cache`` a folder it may write to. It raises
    ``DataError`` where files are missing or malformed. Its options have defaults; the values in
    force stand in the record.
    """

    card: DatasetCard
    names: tuple[str, ...]
    """The C label names in the order of the columns of ``targets``."""

    @abstractmethod
    def index(self, split: Split) -> Index:
        """The samples of a split, in an order that does not depend on the file system."""


@dataclass(frozen=True)
class Splits:
    """A data set opened for a run: what is trained on, and what is scored.

    Attributes:
        identity: name of the edition in hand (``coco-mini``), or ``<dataset>-unknown-<digest>``.
    """

    card: DatasetCard
    names: tuple[str, ...]
    train: Index
    test: Index
    digest: str
    identity: str


@dataclass(frozen=True)
class LabelContext:
    """What is known about the labels before any image is seen; made by the core from TRAIN labels.

    Attributes:
        names: C label names.
        cooccurrence: float32 [C, C]; entry (i, j) counts the training images with both labels,
            the diagonal counts the positives of each label.
        embeddings: float32 [C, E] word vectors.
        images: number of training images that the counts were made from.
    """

    names: tuple[str, ...]
    cooccurrence: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    images: int

    def __len__(self) -> int:
        return len(self.names)


# ------------------------------------------------------------------------------- model contracts
class Level(NamedTuple):
    """One feature map of a backbone: channels D and stride in pixels of the input."""

    channels: int
    stride: int


FeatureSpec = tuple[Level, ...]
"""The levels of a backbone, shallow to deep; the last is what its own classifier would pool."""


class HeadOutput(NamedTuple):
    """What a head returns: logits [B, C] and named, weighted scalars added to the loss."""

    logits: Tensor
    aux: Mapping[str, Tensor] = {}


class Angles(NamedTuple):
    """How logits are made of cosines: ``scale * (2 ((cos + 1) / 2)^exponent - 1)``.

    A classifier on angles has an attribute ``angles`` of this type, and so has a loss that only
    makes sense on angles; the core gives the loss's to the classifier of the run, and refuses such
    a loss for a head without one.
    """

    scale: float = 23.0
    exponent: float = 1.0


class Backbone(Protocol):
    """An ``nn.Module``: images [B, 3, H, W] (normalised) to one map [B, D, H, W] a level.

    ``stages`` are its parts from the input to the deepest map, for freezing; every parameter and
    buffer of the module belongs to exactly one of them. ``mean`` and ``std`` are what its weights
    were trained with. A factory is called as ``factory(weights=..., image_size=...)`` with
    ``"default"``, ``"none"`` or a file's path, and the side of the square images to come.
    """

    spec: FeatureSpec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def stages(self) -> Sequence[Sequence[Any]]:
        """Groups of modules or parameters, shallow to deep."""
        ...

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, H, W] -> one map a level of ``spec``."""
        ...


class Head(Protocol):
    """An ``nn.Module`` made by ``factory(spec, labels, **options)``: a function of features alone.

    What it knows of the labels enters at construction and lives in buffers. A case that it cannot
    serve is refused in the constructor with a ``PluginError`` that says what to use instead. A
    module of it whose logits are made of cosines has an attribute ``angles`` (see ``Angles``).
    """

    def __call__(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """One map a level -> logits [B, C]."""
        ...


class Loss(Protocol):
    """Made by ``factory(labels, **options)``: (logits [B, C], targets int8 [B, C]) -> scalar.

    Unknown labels (-1) weigh nothing in value and gradient. The value is a mean over images; a loss
    that adds up over them instead says so by an attribute ``reduction`` that is ``"sum"``, and one
    that works on angles by an attribute ``angles`` (see ``Angles``).
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The scalar loss."""
        ...


HeadFactory = Callable[..., Head]


# -------------------------------------------------------------------------------------- settings
class Preprocessing(Value):
    """From a decoded image to the pixels that a model sees at test time.

    Attributes:
        resize: squash to a square of this size and cut ``image_size`` from its centre;
            None squashes to ``image_size`` and cuts nothing.
        interpolation: of every resize.
        mean, std: of the normalisation; None takes what the backbone's weights were trained with.
    """

    resize: PositiveInt | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class Augmentation(Value):
    """One step on a training image: a name of ``mlbench.data.transforms`` and its options."""

    name: str
    options: dict[str, Any] = {}


class Optimizer(Value):
    """An optimiser.

    Attributes:
        momentum: SGD's; beta1 of Adam and AdamW.
        decay_norms_and_biases: False takes the weight decay off biases, parameters of
            normalisations and all others of fewer than two dimensions.
        bias_lr_scale: learning rate of biases, relative to the other parameters'.
    """

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: NonNegativeFloat = 1e-4
    weight_decay: NonNegativeFloat = 1e-4
    momentum: NonNegativeFloat = 0.9
    decay_norms_and_biases: bool = True
    bias_lr_scale: NonNegativeFloat = 1.0


class Schedule(Value):
    """The learning rate over a run; lengths are in epochs and tied to the run's real length.

    ``one_cycle`` rises for ``pct_start`` of the run from lr/div and falls to lr/(div*final_div);
    ``step`` multiplies by ``gamma`` at each of ``milestones``; ``constant`` stays. A linear
    ``warmup`` multiplies any of them.
    """

    name: Literal["one_cycle", "step", "constant"] = "one_cycle"
    warmup: NonNegativeFloat = 0.0
    pct_start: float = Field(0.2, gt=0, lt=1)
    div: float = Field(25.0, ge=1)
    final_div: float = Field(1e4, ge=1)
    milestones: tuple[NonNegativeFloat, ...] = ()
    gamma: float = Field(0.1, gt=0)


class Settings(Value):
    """Everything about a run that changes its numbers, but data and seed.

    Attributes:
        backbone, head, loss: plugin names; ``*_options`` go to their factories.
        weights: what the backbone starts from: ``default`` (its own download), ``none`` or
            ``sha256:...`` of a file.
        epochs, batch_size: the budget; the batch is the global one, over all processes.
        backbone_lr_scale: learning rate of the backbone relative to the head's.
        frozen_stages: stages of the backbone that are not trained, from the input; -1 freezes all.
        freeze_bn: keep every batch norm of the backbone in evaluation mode.
        sync_bn: synchronise batch norms over the processes.
        ema_decay: of the exponential moving average that is evaluated; 0 evaluates the weights.
        grad_clip: largest global norm of the gradient that the optimiser is given; 0 does not clip.
        sam_rho: radius of sharpness-aware minimisation, 0 for none (``mlbench.engine.sam``).
        sam_adaptive: measure the radius relative to the size of each weight (ASAM).
        sam_bn: which of SAM's two passes move batch norm statistics.
        mutual_weight: of the divergence from a second model that learns along, 0 for none; the
            first is the one that is scored (``mlbench.engine.mutual``).
    """

    backbone: str = "resnet101"
    weights: str = Field("default", pattern=r"^(default|none|sha256:[0-9a-f]+)$")
    head: str
    head_options: dict[str, Any] = {}
    loss: str = "bce"
    loss_options: dict[str, Any] = {}
    image_size: PositiveInt = 448
    preprocessing: Preprocessing = Preprocessing()
    augmentation: tuple[Augmentation, ...] = ()
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 32
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    backbone_lr_scale: NonNegativeFloat = 1.0
    frozen_stages: int = Field(0, ge=-1)
    freeze_bn: bool = False
    sync_bn: bool = False
    ema_decay: float = Field(0.0, ge=0, lt=1)
    grad_clip: NonNegativeFloat = 0.0
    sam_rho: NonNegativeFloat = 0.0
    sam_adaptive: bool = False
    sam_bn: Literal["both", "first"] = "both"
    mutual_weight: NonNegativeFloat = 0.0


class Reported(Value):
    """A score of the literature, with where it was read and how far it is verified."""

    dataset: str
    metric: str
    value: float
    source: str
    status: Literal["verified", "secondary"]
    note: str = ""


class Proof(NamedTuple):
    """What an array of a parity fixture is computed from, in float64.

    ``head`` holds the fixture's weights, ``features`` are the maps that it is given, ``graph`` is
    P(j | i) [C, C] (empty where the fixture has none), ``fixture`` its fields as they stand there.
    """

    head: Any
    features: tuple[Tensor, ...]
    graph: Tensor
    fixture: Mapping[str, Any]


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Released:
    """How the files that a method's authors published become ours; what a Recipe knows of them.

    A state is a mapping of the authors' names, without the prefix ``module.``, to tensors.

    Attributes:
        title: who released them, with what.
        marks: regular expressions; each is found in some name of such a file and of no other's.
        trunk: state -> the state dict of the backbone.
        head: state -> the parameters and buffers of the head that the file holds.
        options: state -> options of the head that shapes tell (number of heads, of groups).
        settings: what differs from the recipe's settings.
        unused: regular expressions of names that the authors' own code never uses.
        label_axes: name of a head's tensor -> its axes that run over labels; the first names a
            tensor whose size there is the number of labels.
        rearrange: (state of the head, the new order of its labels) -> state, for tensors that
            ``label_axes`` cannot describe.
        order: in which order the labels stand: ``official`` is the data set's own (COCO's ids),
            ``alphabetical`` sorts the names.
        needs: ``graph`` and ``words`` -> the head's buffers that are made of them; they are asked
            for where the file lacks these.
        graph: (P(j | i) [C, C] as the authors have it, the head's options) -> the head's buffers
            that are made of it.
        handed_over: options with which the head takes the maps that parity fixtures of heads hold.
        fixture_options: fields of a fixture -> options of the head, beyond those of equal names.
        variants: name of a fixture's array -> options with which the head gives it.
        outputs: name of a fixture's array -> how to compute it; ``logits`` need not stand here.
    """

    title: str
    marks: tuple[str, ...]
    trunk: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    head: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]] = _nothing
    settings: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    label_axes: Mapping[str, tuple[int, ...]]
    rearrange: Callable[[dict[str, Tensor], Sequence[int]], dict[str, Tensor]] | None = None
    order: Literal["official", "alphabetical"] = "official"
    needs: Mapping[Literal["graph", "words"], tuple[str, ...]] = field(default_factory=dict)
    graph: Callable[[Tensor, Mapping[str, Any]], dict[str, Tensor]] | None = None
    handed_over: Mapping[str, Any] = field(default_factory=dict)
    fixture_options: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Callable[[Proof], Tensor]] = field(default_factory=dict)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)


class Recipe(Value):
    """How a method's authors train it, and what a reader should know.

    Attributes:
        title, bibtex: the paper.
        summary: what is new in it, in a sentence or two.
        settings: the paper's own training, as the published track runs it.
        per_dataset: data set, or a family of them (see ``DatasetCard``) -> settings that differ.
        dataset_options: data set or family -> options of it that the authors chose (which images
            count, what becomes of difficult labels); the published track takes them.
        tuned: track -> settings found for this method under an equal budget; only the learning
            rate, the weight decay and options of the head (see benchmarks/README.md).
        reported: scores of the literature.
        deviations: where this implementation differs from the authors' code, in plain words.
        released: how the files that the authors published become ours; no part of any dump.
    """

    title: str
    bibtex: str
    summary: str
    settings: Settings
    per_dataset: dict[str, dict[str, Any]] = {}
    dataset_options: dict[str, dict[str, Any]] = {}
    tuned: dict[Track, dict[str, Any]] = {}
    reported: tuple[Reported, ...] = ()
    deviations: tuple[str, ...] = ()
    released: tuple[Released, ...] = Field((), exclude=True, repr=False)


# ------------------------------------------------------------------------------ runs and records
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


class RunSpec(Value):
    """One run as plain data: everything that changes its numbers, and nothing else.

    Attributes:
        method: name of the recipe, or of a head without one.
        dataset: plugin name; ``dataset_options`` go to its factory.
        data: digest of the keys and targets of both splits (see ``digest``).
        labels: the labels that take part, None for all.
        holdout: this part of the training split is scored instead of the test split, and not
            trained on: for choosing settings. 0 trains on all and scores the test split.
        words: where the label embeddings come from: ``cooccurrence`` or ``sha256:...`` of a file.
    """

    method: str
    dataset: str
    dataset_options: dict[str, Any] = {}
    data: str
    labels: tuple[str, ...] | None = None
    holdout: float = Field(0.0, ge=0, lt=1)
    track: Track
    seed: NonNegativeInt = 0
    precision: Precision = "fp32"
    words: str = "cooccurrence"
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
    median_ms: float
    p95_ms: float
    images_per_second: float


class Efficiency(Value):
    """What inference costs. GMACs are 1e9 multiply-accumulates (half of torch's FLOPs) an image."""

    parameters_backbone: int
    parameters_head: int
    gmacs_backbone: float
    gmacs_head: float
    latency: tuple[Latency, ...]
    peak_memory_mb: float
    image_size: int
    precision: Precision
    device: str
    threads: int
    versions: dict[str, str]


class Scores(Value):
    """The canonical protocol's numbers, in percent; definitions stand in benchmarks/README.md."""

    mAP: float  # noqa: N815 - the field's own spelling
    mAP_low: float  # noqa: N815 - bounds of the 95 % bootstrap interval over images
    mAP_high: float  # noqa: N815
    CP: float
    CR: float
    CF1: float
    OP: float
    OR: float
    OF1: float
    top3_CP: float  # noqa: N815
    top3_CR: float  # noqa: N815
    top3_CF1: float  # noqa: N815
    top3_OP: float  # noqa: N815
    top3_OR: float  # noqa: N815
    top3_OF1: float  # noqa: N815
    classes_scored: int
    classes_left_out: int


class EpochLog(Value):
    """One epoch: mean loss, largest gradient norm before clipping, images a second."""

    epoch: int
    loss: float
    aux: dict[str, float] = {}
    grad_norm: float | None = None
    lr: float
    seconds: float
    images_per_second: float


class RunRecord(Value):
    """What a run found; written once.

    Attributes:
        identity: name of the data's edition (``coco-mini``), or ``<dataset>-unknown-<digest>``.
        status: ``ok``, or ``diverged`` with ``error`` saying at which step.
        label_names: C names, the columns of the predictions.
        average_precision: percent a label, None where the test split has no positive.
        commit: git commit of the code, ``-dirty`` appended when the tree was.
        command: the command line that made it.
    """

    run_id: str
    spec: RunSpec
    identity: str
    status: Literal["ok", "diverged"]
    error: str | None = None
    scores: Scores | None = None
    label_names: tuple[str, ...]
    average_precision: tuple[float | None, ...] = ()
    train_images: int
    test_images: int
    efficiency: Efficiency | None = None
    epochs: tuple[EpochLog, ...] = ()
    checkpoint: str | None = None
    environment: dict[str, Any]
    started: str
    seconds: dict[str, float]
    command: str
    commit: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predictions:
    """Logits float32 [N, C] on the test split with their keys [N] and targets int8 [N, C]."""

    logits: NDArray[np.float32]
    targets: Targets
    keys: tuple[str, ...]


def digest(train: Index, test: Index, names: Sequence[str]) -> str:
    """Identity of the data: 16 hex digits over names, keys and targets of both splits.

    The order of the images does not matter, the order of the labels does.
    """
    state = hashlib.sha256("\n".join(names).encode())
    for index in (train, test):
        order = sorted(range(len(index)), key=index.keys.__getitem__)
        state.update(b"\x00" + "\n".join(index.keys[i] for i in order).encode() + b"\x00")
        state.update(np.ascontiguousarray(index.targets[order]).tobytes())
    return state.hexdigest()[:16]
