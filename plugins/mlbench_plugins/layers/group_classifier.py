"""A classifier on vectors that each serve a group of labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mlbench.types import Angles
from mlbench_plugins.layers.classifiers import cosines, is_cosine, logits_of_cosines


class GroupClassifier(nn.Module):
    """Logits of C labels from K vectors, g = ceil(C / K) consecutive labels to a vector.

    Tal Ridnik et al., "ML-Decoder", WACV 2023, section 2.3 (group fully-connected). With K = C it
    is one classifier a label on that label's own vector. The first ``used`` vectors serve all
    labels; a caller may leave out the others.

    Args:
        labels, groups, channels: C, K <= C and D.
        classifier: ``linear``, or ``cosine``: the cosine of vector and weights, plus the bias, all
            scaled (Prokofiev and Sovrasov, arXiv 2209.06585).

    Attributes:
        used: ceil(C / g), vectors that are needed.
        angles: of ``cosine`` alone: scale and exponent; a loss on angles brings its own.

    Raises:
        PluginError: the classifier is neither.
    """

    angles: Angles

    def __init__(self, labels: int, groups: int, channels: int, classifier: str = "linear") -> None:
        super().__init__()
        self.cosine = is_cosine(classifier)
        if self.cosine:
            self.angles = Angles()
        self.labels = labels
        size = math.ceil(labels / groups)
        self.used = math.ceil(labels / size)
        self.weight = nn.Parameter(torch.empty(groups, channels, size))
        self.bias = nn.Parameter(torch.zeros(labels))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (channels + size)))

    def forward(self, x_BKD: Tensor) -> Tensor:
        """Vectors [B, used or K, D] to logits [B, C]."""
        x_BKD, weight_KDG = x_BKD[:, : self.used], self.weight[: self.used]
        if not self.cosine:
            return self._join(_groups(x_BKD, weight_KDG))
        cosines_BKG = cosines(_groups, x_BKD, weight_KDG, axis=1)
        return logits_of_cosines(self._join(cosines_BKG), self.angles)

    def _join(self, scores_BKG: Tensor) -> Tensor:
        return scores_BKG.flatten(1)[:, : self.labels] + self.bias


def _groups(x_BKD: Tensor, weight_KDG: Tensor) -> Tensor:
    return torch.einsum("bkd,kdg->bkg", x_BKD, weight_KDG)
