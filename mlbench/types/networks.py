"""A model as plain data: its network, what its file says, and how fast it was measured to be."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mlbench.types.literals import Precision
from mlbench.types.models import HeadOutput, Pretraining
from mlbench.types.runs import RunRecord, RunSpec, Scores
from mlbench.types.settings import Amount, Preprocessing, Probability, Settings, Time, Value

DEFAULT_THRESHOLD = 0.5
"""Least score of a present label, for models without thresholds of their own."""
INITIALISATION = frozenset({"prior_bias"})
"""Options of heads that only set initial weights and do not change the computation."""
BUSY = 0.2
"""A timing that lost a larger share of its time to other work is repeated, then marked."""
WIDE = 0.06
"""A timing with a wider interval of its ratio, relative to the ratio, is repeated, then marked."""


def computing_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a head that its speed may depend on."""
    return {name: value for name, value in options.items() if name not in INITIALISATION}


class Network(Value):
    """A model without its weights: everything that its speed on a device depends on.

    Attributes:
        backbone, head: plugin names.
        backbone_options, head_options: options of their factories (see ``computing_options``).
        labels: C.
        image_size: pixels of a side.
        parameters: number of parameters in both; it also tells apart models built by other code.
    """

    backbone: str
    backbone_options: dict[str, Any] = {}
    head: str
    head_options: dict[str, Any] = {}
    labels: PositiveInt
    image_size: PositiveInt
    parameters: NonNegativeInt

    @classmethod
    def of(cls, record: RunRecord) -> Network | None:
        """The model of a run; None if its record does not say how the model was built."""
        settings, counted = record.spec.settings, record.efficiency
        if counted is None:
            return None
        built = counted.backbone_options
        if built is None and settings.weights.startswith("sha256:"):
            return None  # the header of the file may have changed the architecture
        return cls(
            backbone=settings.backbone,
            backbone_options=built or {},
            head=settings.head,
            head_options=computing_options(settings.head_options),
            labels=len(record.label_names),
            image_size=counted.image_size,
            parameters=counted.parameters_backbone + counted.parameters_head,
        )

    @property
    def name(self) -> str:
        """A unique name: ``ssgrl-mobilenetv2_100-224-80-1c0ffee0``."""
        plain = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        parts = (self.head, self.backbone, self.image_size, self.labels)
        return "-".join(map(str, (*parts, hashlib.sha256(plain.encode()).hexdigest()[:8])))

    @property
    def trunk(self) -> str:
        """A name that models on the same bare backbone share."""
        options = json.dumps(self.backbone_options, sort_keys=True)
        return f"{self.backbone} {options} at {self.image_size}"


# ----------------------------------------------------------------------------------------- the file
class ModelInfo(Value):
    """The contents of a model file besides its weights; stored in its header as JSON.

    Attributes:
        spec: the run that trained the model.
        label_names: C names, in the order of the logits.
        preprocessing: how an image becomes pixels, with ``mean`` and ``std`` filled in.
        word_width: E of the label embeddings that the head was made with.
        backbone_options: options with which the backbone's factory builds the same architecture
            without the file of initial weights.
        calibration: (slope, offset) for each label; the score of a label is
            sigmoid(slope * logit + offset). None stands for (1, 0).
        thresholds: for each label, the score from which it counts as present; None for
            ``DEFAULT_THRESHOLD``.
        identity: edition of the data that ``scores`` belong to.
        scores: scores of the run; None if it has none.
        commit, created: commit of the code that trained the model, and the time.
        notes: remarks for users, such as how the thresholds were chosen.
        pretraining: how the initial weights were trained; None in older files.
        plugins: ``head gap`` -> the package that it came from; empty in older files.
    """

    spec: RunSpec
    label_names: tuple[str, ...]
    preprocessing: Preprocessing
    word_width: PositiveInt = 300
    backbone_options: dict[str, Any] = {}
    calibration: tuple[tuple[FiniteFloat, FiniteFloat], ...] | None = None
    thresholds: tuple[Probability, ...] | None = None
    identity: str = ""
    scores: Scores | None = None
    commit: str | None = None
    created: str = ""
    notes: tuple[str, ...] = ()
    pretraining: Pretraining | None = None
    plugins: dict[str, str] = {}

    def as_pretraining(self) -> Pretraining:
        """The pretraining of a run that starts from this model."""
        before = self.pretraining or Pretraining(data="unknown")
        data = f"{before.data}, then {self.identity or self.spec.dataset}"
        return before.model_copy(update={"data": data})

    @property
    def settings(self) -> Settings:
        """The run's settings, with the preprocessing that the model was trained with."""
        return self.spec.settings.model_copy(update={"preprocessing": self.preprocessing})

    @model_validator(mode="after")
    def _check(self) -> ModelInfo:
        for name in ("calibration", "thresholds"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.label_names):
                raise ValueError(
                    f"{name} has {len(values)} entries for {len(self.label_names)} labels"
                )
        return self


class ModelFile(NamedTuple):
    """A trained model that was read from a file, ready to be used.

    A plugin of the group ``mlbench.formats`` is a function from a file to this; its name is the
    ending of the files that it reads (``onnx``). Checkpoints of mlbench need none.

    Attributes:
        network: uint8 images [B, 3, H, W] -> ``HeadOutput``; normalizes its input.
        info: labels, preprocessing and origin.
    """

    network: Callable[..., HeadOutput]
    info: ModelInfo


# ------------------------------------------------------------------------------- the measured speed
class Timing(Value):
    """The time of a batch, and of the bare backbone in the same rounds, in milliseconds.

    Attributes:
        batch_size: B.
        rounds: number of times that model and bare backbone were timed, one right after the other.
        median_ms: median over the rounds; ``p05_ms`` and ``p95_ms`` are quantiles.
        bare_ms: median of the bare backbone.
        head_ms: median of the differences to the bare backbone of the same round.
        ratio: median of the ratios to the bare backbone of the same round.
        ratio_low, ratio_high: its 95 % interval.
        lost: share of the elapsed time in which other work had the processor.
    """

    batch_size: PositiveInt
    rounds: PositiveInt
    median_ms: PositiveFloat
    p05_ms: PositiveFloat
    p95_ms: PositiveFloat
    bare_ms: PositiveFloat
    head_ms: float
    ratio: PositiveFloat
    ratio_low: PositiveFloat
    ratio_high: PositiveFloat
    lost: float = Field(ge=0, le=1)

    @property
    def trouble(self) -> Literal["", "busy", "unsteady"]:
        """Why the timing is not reliable; empty if it is."""
        if self.ratio_high - self.ratio_low > WIDE * self.ratio:
            return "unsteady"
        return "busy" if self.lost > BUSY else ""


class ModelCost(Value):
    """The speed of a model on a device, as ``mlbench measure`` measured it.

    Attributes:
        device: the product's name.
        threads: threads of the CPU; 0 on a GPU.
        timings: one each for batch sizes 1, 16 and ``best_batch``; a batch size that does not fit
            the memory, or takes too long, is left out.
        best_batch: the batch size with the most images a second.
        load: load average of the host before the measurement.
        measured: time of the measurement.
        digest: digest of all other fields, as a record's.
    """

    version: Literal[1] = 1
    network: Network
    device: str
    threads: NonNegativeInt
    precision: Precision
    runtime: str
    timings: tuple[Timing, ...]
    best_batch: PositiveInt
    load: Amount
    versions: dict[str, str]
    commit: str | None
    command: str
    measured: Time
    digest: str = ""

    @property
    def place(self) -> str:
        """Device, threads, precision and runtime; only times of equal places are comparable."""
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        return f"{self.device}{threads}, {self.precision}, {self.runtime}"


class Speed(Value):
    """The speed of a model at one place of measurement.

    Attributes:
        place: device, threads, precision and runtime.
        ms: milliseconds at batch 1; ``low`` and ``high`` are its 95 % interval. Two models whose
            intervals overlap are equally fast, as far as was measured.
        head_ms: what the head adds to the bare backbone.
        ms_16: milliseconds at batch 16; None if it was not measured.
        images_per_second: largest number, reached at the batch size ``best_batch``.
        remark: ``busy`` or ``unsteady`` (see ``Timing.trouble``), or empty.
    """

    place: str
    ms: float
    low: float
    high: float
    head_ms: float
    ms_16: float | None = None
    images_per_second: float | None = None
    best_batch: int
    remark: str = ""


class Speeds:
    """The speeds of all models in a store.

    The ratio of a model to its bare backbone hardly depends on what else the machine does; the time
    of the backbone does, and other work can only increase it. So a model's time is its ratio times
    the shortest time of its backbone in any measurement at the same place.
    """

    def __init__(self, costs: Iterable[ModelCost]) -> None:
        self._costs: defaultdict[str, list[ModelCost]] = defaultdict(list)
        self._bare: dict[tuple[str, str, int], float] = {}
        for cost in costs:
            self._costs[cost.network.name].append(cost)
            for timing in cost.timings:
                key = (cost.place, cost.network.trunk, timing.batch_size)
                self._bare[key] = min(timing.bare_ms, self._bare.get(key, timing.bare_ms))

    def of(self, records: Iterable[RunRecord]) -> tuple[Speed, ...]:
        """The speeds of the model of some records, by place."""
        networks = {n.name for record in records if (n := Network.of(record)) is not None}
        found = (self.speed(cost) for name in networks for cost in self._costs.get(name, ()))
        return tuple(sorted((s for s in found if s is not None), key=lambda speed: speed.place))

    def speed(self, cost: ModelCost) -> Speed | None:
        """The speed of one measured model; None if it has no timing at batch 1."""
        timings = {timing.batch_size: timing for timing in cost.timings}
        if (first := timings.get(1)) is None:
            return None

        def ms(timing: Timing, ratio: float) -> float:
            return ratio * self._bare[cost.place, cost.network.trunk, timing.batch_size]

        many, best = timings.get(16), timings.get(cost.best_batch)
        return Speed(
            place=cost.place,
            ms=ms(first, first.ratio),
            low=ms(first, first.ratio_low),
            high=ms(first, first.ratio_high),
            head_ms=ms(first, first.ratio - 1),
            ms_16=many and ms(many, many.ratio),
            images_per_second=best and 1000 * best.batch_size / ms(best, best.ratio),
            best_batch=cost.best_batch,
            remark=first.trouble,
        )
