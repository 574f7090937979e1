"""What every value is made of, and the words that have few values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "test"]
Track = Literal["published", "controlled", "probe"]
Precision = Literal["fp32", "bf16", "fp16"]
Graph = Literal["cooccurrence", "identity", "random"]
"""What heads make their label graph of (see ``mlbench.data.graphs``)."""
Selection = Literal["last", "validation", "test"]
Tier = Literal["own", "re-scored"]
"""A run of ours, or weights that a method's authors published, scored by us."""
Targets: TypeAlias = "NDArray[np.int8]"
"""Label matrix [N, C]: 1 present, 0 absent, -1 unknown (VOC's difficult, partial labels)."""


class Value(BaseModel):
    """A frozen value; a field it does not know is an error."""

    # An infinite gradient norm must not become null, which could not be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
