"""Frozen values, and the settings of a run: all that changes its numbers except data and seed."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
)

from mlbench.types.literals import Decoder, Selection


class Value(BaseModel):
    """A frozen value; an unknown field is an error."""

    # JSON has no infinity: as null, an infinite gradient norm could not be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


OLD_AVERAGE = 0.05
"""Weight of the state after the first step in a moving average above which a record notes it."""
Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]
Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
"""Seconds, GMACs or a rate: finite, never negative."""
Seed = Annotated[NonNegativeInt, Field(lt=2**63)]
"""Seed of a random number generator; torch accepts no larger ones."""
Spread = Annotated[FiniteFloat, Field(gt=0)]
Time = Annotated[str, AfterValidator(lambda text: datetime.fromisoformat(text) and text)]
"""A date and time in ISO 8601."""


class Preprocessing(Value):
    """Turns a decoded image into the pixels that a model sees at test time.

    Attributes:
        resize: resize to a square of this side and crop ``image_size`` from its centre; None
            resizes to ``image_size`` without a crop.
        interpolation: method of all resizing: ``bilinear`` or ``bicubic``.
        mean, std: normalisation; None takes the values of the backbone's pretraining.
    """

    resize: PositiveInt | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    std: tuple[Spread, Spread, Spread] | None = None


class Augmentation(Value):
    """The name and options of a step of ``data.transforms`` or of a way of ``data.mixing``."""

    name: str
    options: dict[str, Any] = {}


class Optimizer(Value):
    """An optimiser.

    Attributes:
        name: ``sgd``, ``adam`` or ``adamw``.
        lr: learning rate, which the schedule changes.
        weight_decay: weight decay.
        momentum: momentum of SGD, or beta1 of Adam and AdamW.
        decay_norms_and_biases: False exempts biases, parameters of normalisations and all other
            parameters of fewer than two dimensions from the weight decay.
        bias_lr_scale: learning rate of biases relative to the other parameters.
    """

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: Amount = 1e-4
    weight_decay: Amount = 1e-4
    momentum: float = Field(0.9, ge=0, lt=1)
    decay_norms_and_biases: bool = True
    bias_lr_scale: Amount = 1.0


class Schedule(Value):
    """The learning rate over a run.

    Attributes:
        name: ``one_cycle`` rises from lr/div and falls to lr/(div*final_div), ``step`` falls at
            ``milestones``, ``constant`` stays.
        warmup: epochs of a linear rise, which multiplies any of them.
        pct_start: share of the run in which ``one_cycle`` rises.
        div, final_div: where ``one_cycle`` begins and ends.
        cycle_momentum: the momentum of ``one_cycle`` falls from 0.95 to 0.85 while the rate rises
            and returns while it falls, as is the default of torch's ``OneCycleLR``; the optimiser's
            own momentum is not used.
        milestones: epochs at which ``step`` multiplies by ``gamma``.
        gamma: factor of ``step``.
    """

    name: Literal["one_cycle", "step", "constant"] = "one_cycle"
    warmup: Amount = 0.0
    pct_start: float = Field(0.2, gt=0, lt=1)
    div: FiniteFloat = Field(25.0, ge=1)
    final_div: FiniteFloat = Field(1e4, ge=1)
    cycle_momentum: bool = False
    milestones: tuple[Amount, ...] = ()
    gamma: FiniteFloat = Field(0.1, gt=0)


class Settings(Value):
    """Everything that changes the numbers of a run, except data and seed.

    Attributes:
        backbone, head, loss: plugin names.
        head_options, loss_options: options of their factories.
        weights: initial weights of the backbone: ``default`` (downloaded), ``none`` or
            ``sha256:...`` of a file.
        image_size: side of the square that the model sees, in pixels.
        decoder: ``turbo``, ``pillow`` or ``nvjpeg``. ``turbo`` is faster than ``pillow``, and
            differs from it by a grey level in resized images. ``nvjpeg`` trains on CUDA only, and
            differs more at edges between colours; the record's scores are of its pixels, too, as
            are those of ``mlbench evaluate`` on CUDA. Elsewhere such a model sees the pixels of
            ``turbo``.
        augmentation: steps on each training image.
        mixing: how the images of a batch are mixed after these steps; None mixes nothing.
        epochs: number of epochs; 0 in the zero-shot track.
        batch_size: images of a training step, over all processes.
        grad_accumulation: number of micro-batches per batch, which save memory; batch norms see
            one at a time.
        backbone_lr_scale: learning rate of the backbone relative to the head.
        frozen_stages: number of the backbone's stages, from the input, that are not trained; -1
            freezes all.
        freeze_bn: keep every batch norm of the backbone in evaluation mode.
        sync_bn: batch norms use the statistics of the global batch; if False, of each process's
            part.
        ema_decay: decay of the moving average that is evaluated; 0 evaluates the weights.
        ema_warmup: after t updates the decay is min(``ema_decay``, (1 + t) / (10 + t)), so that a
            short run forgets its first weights; the tracks other than published set it.
        grad_clip: maximum global norm of the gradient; 0 does not clip.
        sam_rho: radius of sharpness-aware minimisation (``mlbench.engine.optim``); 0 for none.
        sam_adaptive: scale the radius by the size of each weight (ASAM).
        sam_bn: which of SAM's two passes update batch norm statistics: ``both`` or ``first``.
        mutual_weight: weight of the divergence from a second model in mutual learning
            (``mlbench.engine.train``); 0 for none. The first model is scored.
        compile: compile the model's (in the probe track the head's) training passes with
            ``torch.compile``; ``graphs`` replays them as CUDA graphs, for small models.
        selection: the epoch to score: the last, or the best by mAP on the ``validation`` part,
            which is not trained on, or on the ``test`` split (published track only).
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
    mixing: Augmentation | None = None
    decoder: Decoder = "turbo"
    epochs: NonNegativeInt = 20
    batch_size: PositiveInt = 32
    grad_accumulation: PositiveInt = 1
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    backbone_lr_scale: Amount = 1.0
    frozen_stages: int = Field(0, ge=-1)
    freeze_bn: bool = False
    sync_bn: bool = True
    ema_decay: float = Field(0.0, ge=0, lt=1)
    ema_warmup: bool = False
    grad_clip: Amount = 0.0
    sam_rho: Amount = 0.0
    sam_adaptive: bool = False
    sam_bn: Literal["both", "first"] = "both"
    mutual_weight: Amount = 0.0
    compile: Literal[False, True, "graphs"] = False
    selection: Selection = "last"

    def decay_after(self, updates: int) -> float:
        """Decay of the moving average at the update after ``updates`` others."""
        warm = (1 + updates) / (10 + updates)
        return min(self.ema_decay, warm) if self.ema_warmup else self.ema_decay

    def first_weights_share(self, images: int, epochs: int) -> float:
        """Weight of the state after the first step in the moving average after some epochs."""
        if not self.ema_decay:
            return 0.0
        later = max(epochs * max(images // self.batch_size, 1) - 1, 0)
        # In the product of the warm decays (1 + t) / (10 + t), all but nine factors cancel.
        warm = int((10 * self.ema_decay - 1) / (1 - self.ema_decay)) if self.ema_warmup else 0
        warm = min(max(warm, 0), later)
        return math.prod(k / (warm + k) for k in range(2, 11)) * self.ema_decay ** (later - warm)
