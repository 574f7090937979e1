"""A trained model apart from its weights: everything that is needed to use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import Field, FiniteFloat, PositiveInt, model_validator

from mlbench.types.models import HeadOutput
from mlbench.types.runs import RunSpec, Scores
from mlbench.types.settings import Preprocessing, Value

DEFAULT_THRESHOLD = 0.5
"""The score from which a label counts as present in a model without thresholds of its own."""

Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]


class ModelInfo(Value):
    """What a model file says besides its weights; stored in its header as JSON.

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
        scores: of the run; None if it has none.
        commit, created: of the code that trained the model, and when.
        notes: remarks for users, such as how the thresholds were chosen.
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
