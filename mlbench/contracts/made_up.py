"""Made-up labels, features and targets that the checks feed to plugins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlbench.types import FeatureSpec, LabelContext, Level

SPECS: dict[str, FeatureSpec] = {
    "a pyramid of three levels": (Level(16, 8), Level(32, 16), Level(48, 32)),
    "a ViT's three equal levels": (Level(32, 16), Level(32, 16), Level(32, 16)),
    "one level": (Level(40, 32),),
}
PYRAMID = SPECS["a pyramid of three levels"]


def label_context(count: int, words: int = 12) -> LabelContext:
    """This many labels with a co-occurrence that real counts could have, one label never seen."""
    generator = np.random.default_rng(count)
    present = generator.random((60, count)) < 0.3
    present[0] = True
    if count > 2:
        present[:, -1] = False
    counts = present.T.astype(np.float32) @ present.astype(np.float32)
    embeddings = generator.standard_normal((count, words)).astype(np.float32)
    objects = counts.diagonal().astype(np.int64) * 2
    names = tuple(f"label {i}" for i in range(count))
    return LabelContext(names, counts, embeddings, 60, lambda: objects)


def reordered(labels: LabelContext, order: Sequence[int]) -> LabelContext:
    """The same labels, the one at ``order[i]`` now at place i."""
    return LabelContext(
        tuple(labels.names[i] for i in order),
        labels.cooccurrence[np.ix_(order, order)],
        labels.embeddings[list(order)],
        labels.images,
        lambda: labels.objects[list(order)],
    )


def features(
    spec: FeatureSpec, batch: int = 2, height: int = 96, width: int = 160, device: str = "cpu"
) -> tuple[Tensor, ...]:
    """Maps as a backbone of this spec gives them for images of this size."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, lv.channels, height // lv.stride, width // lv.stride) for lv in spec]
    return tuple(torch.randn(s, generator=generator).to(device) for s in shapes)


def targets(batch: int, count: int) -> Tensor:
    """int8 [B, C] in {1, 0, -1}; of the first image one label alone is known."""
    values = torch.tensor([1, 0, 0, -1, 1, 0, 0], dtype=torch.int8)
    table_BC = values.repeat(batch * count)[: batch * count].view(batch, count).clone()
    table_BC[0, 1:] = -1
    return table_BC
