"""Classifiers that turn vectors into logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import PluginError


def make_classifier(name: str, channels: int, labels: int) -> nn.Module:
    """The classifier of this name, from vectors [..., D] to logits [..., C].

    Raises:
        PluginError: it is neither ``linear`` nor ``cosine``.
    """
    if name == "linear":
        return nn.Linear(channels, labels)
    if name == "cosine":
        return CosineClassifier(channels, labels)
    raise PluginError(f"there is no classifier {name!r}; known: linear, cosine")


class CosineClassifier(nn.Module):
    """Cosines between vectors [..., D] and a weight vector a label: [..., C], in [-1, 1].

    Args:
        channels, labels: D and C.
    """

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(labels, channels))
        nn.init.normal_(self.weight)

    def forward(self, x_D: Tensor) -> Tensor:
        """Vectors to cosines."""
        return functional.linear(
            functional.normalize(x_D, dim=-1), functional.normalize(self.weight, dim=-1)
        )


class ElementwiseClassifier(nn.Module):
    """One linear classifier a label on that label's own vector: [B, C, D] -> [B, C].

    Args:
        labels, channels: C and D.
    """

    def __init__(self, labels: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(labels, channels))
        self.bias = nn.Parameter(torch.empty(labels))
        bound = channels**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x_BCD: Tensor) -> Tensor:
        """A product that flop counters see, unlike ``(x * w).sum(-1)``."""
        return torch.einsum("bcd,cd->bc", x_BCD, self.weight) + self.bias
