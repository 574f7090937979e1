"""Made-up labels, features and targets, for the checks of plugins and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbench.types import FeatureSpec, LabelContext, Level

SPECS: dict[str, FeatureSpec] = {
    "a pyramid of three levels": (Level(16, 8), Level(32, 16), Level(48, 32)),
    "a ViT's three equal levels": (Level(32, 16), Level(32, 16), Level(32, 16)),
    "one level": (Level(40, 32),),
    "one vector an image": (Level(48, 0),),
}
PYRAMID = SPECS["a pyramid of three levels"]


def made_up_context(count: int, words: int = 48) -> LabelContext:
    """Labels whose co-occurrence real images could have; of three or more, the last never occurs.

    ``words`` is E, the length of their vectors.
    """
    generator = np.random.default_rng(count)
    present = generator.random((60, count)) < 0.3
    present[0] = True
    if count > 2:
        present[:, -1] = False
    counts = present.T.astype(np.float32) @ present.astype(np.float32)
    embeddings = generator.standard_normal((count, words)).astype(np.float32)
    objects = counts.diagonal().astype(np.int64) * 2
    return LabelContext(_names(count), counts, embeddings, 60, lambda: objects)


def known_context(cooccurrence: Any, embeddings: Any = None, images: int = 100) -> LabelContext:
    """Labels with this co-occurrence [C, C] and these word vectors [C, E], in the dtypes given.

    Without word vectors, each is a single zero.
    """
    counts_CC = np.asarray(cooccurrence)
    count = len(counts_CC)
    words_CE = np.zeros((count, 1), np.float32) if embeddings is None else np.asarray(embeddings)
    return LabelContext(_names(count), counts_CC, words_CE, images)


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"label {i}" for i in range(count))


def reordered(labels: LabelContext, order: Sequence[int]) -> LabelContext:
    """The same labels in another order: label i of the result is label ``order[i]``."""
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
    """Random maps as a backbone with this spec gives them for images of this size."""
    generator = torch.Generator().manual_seed(0)
    strides = [(level.stride or height, level.stride or width) for level in spec]
    shapes = [
        (batch, level.channels, height // down, width // across)
        for level, (down, across) in zip(spec, strides, strict=True)
    ]
    return tuple(torch.randn(s, generator=generator).to(device) for s in shapes)


def targets(batch: int, count: int) -> Tensor:
    """int8 [B, C] in {1, 0, -1}; in the first image only one label is known."""
    values = torch.tensor([1, 0, 0, -1, 1, 0, 0], dtype=torch.int8)
    table_BC = values.repeat(batch * count)[: batch * count].view(batch, count).clone()
    table_BC[0, 1:] = -1
    return table_BC
