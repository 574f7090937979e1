"""The measured speed of a model: a property of the model and the device, not of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from mlbench.types.literals import Precision
from mlbench.types.runs import RunRecord
from mlbench.types.settings import Amount, Time, Value

INITIALISATION = frozenset({"prior_bias"})
"""Options of heads that only set initial weights and do not change the computation."""
BUSY = 0.2
"""Share of the time lost to other work from which a reading is repeated, then marked."""
WIDE = 0.06
"""Width of a ratio's interval, relative to the ratio, from which it is repeated, then marked."""


def computing_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a head that its speed may depend on."""
    return {name: value for name, value in options.items() if name not in INITIALISATION}


class Network(Value):
    """A model without its weights: everything that its speed on a device depends on.

    Attributes:
        backbone, head: plugin names.
        backbone_options, head_options: of their factories (see ``computing_options``).
        labels: C.
        image_size: pixels of a side.
        parameters: of backbone and head. It also tells apart models that other code built.
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
        """What models on the same bare backbone share."""
        options = json.dumps(self.backbone_options, sort_keys=True)
        return f"{self.backbone} {options} at {self.image_size}"


class Timing(Value):
    """The time of a batch, and of the bare backbone in the same rounds, in milliseconds.

    Attributes:
        batch_size: B.
        rounds: how often model and bare backbone were timed, one right after the other.
        median_ms: of the rounds; ``p05_ms`` and ``p95_ms`` are their quantiles.
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
        """Why the reading is not to be trusted; empty if nothing speaks against it."""
        if self.ratio_high - self.ratio_low > WIDE * self.ratio:
            return "unsteady"
        return "busy" if self.lost > BUSY else ""


class ModelCost(Value):
    """What ``mlbench measure`` found out about a model on a device.

    Attributes:
        device: the product's name.
        threads: of the CPU; 0 on a GPU.
        timings: at batch sizes 1 and 16 and at ``best_batch``; a batch size that does not fit the
            memory, or takes too long, is left out.
        best_batch: the batch size with the most images a second.
        load: load average of the host before the measurement.
        measured: when.
        digest: of all other fields, as a record's.
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
