"""Words with few values, and names for arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "test"]
Track = Literal["published", "controlled", "probe", "zero_shot"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""``fp32`` is float32 throughout; ``tf32`` multiplies float32 matrices in TF32 (CUDA only)."""
Graph = Literal["cooccurrence", "identity", "random"]
"""What heads build their label graph from (see ``mlbench.data.labels``)."""
Decoder = Literal["turbo", "pillow", "nvjpeg"]
"""What decodes and resizes images (see ``mlbench.data.decode.load``)."""
Keep = Literal["all", "best", "none"]
"""Which trained models to keep; ``best``: see ``mlbench.store.Store.prune``."""
Selection = Literal["last", "validation", "test"]
Tier = Literal["own", "re-scored"]
"""``own``: we trained it. ``re-scored``: published weights of the authors, scored by us."""

Targets: TypeAlias = "NDArray[np.int8]"
"""Label matrix [N, C]: 1 present, 0 absent, -1 unknown (VOC's difficult, partial labels)."""
ObjectCounts: TypeAlias = "NDArray[np.int64]"
"""The number of annotated objects of each label: [C]."""
