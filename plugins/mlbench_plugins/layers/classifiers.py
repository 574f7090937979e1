"""Classifiers that turn vectors into logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import Angles, LabelContext, PluginError
from mlbench_plugins.layers.numerics import at_least_float32, without_autocast
from mlbench_plugins.layers.options import check_choice

Product = Callable[[Tensor, Tensor], Tensor]
"""Vectors and weights to scores, summed over D."""


def is_cosine(classifier: str) -> bool:
    """True for ``cosine``, which works on angles, and False for ``linear``.

    Raises:
        PluginError: it is neither.
    """
    return check_choice("classifier", classifier, ("linear", "cosine")) == "cosine"


def make_classifier(name: str, labels: int, channels: int) -> nn.Module:
    """The classifier of this name, from vectors [..., D] to logits [..., C].

    Raises:
        PluginError: it is neither ``linear`` nor ``cosine``.
    """
    return CosineClassifier(labels, channels) if is_cosine(name) else nn.Linear(channels, labels)


def make_elementwise(name: str, labels: int, channels: int) -> nn.Module:
    """The classifier of this name for one vector per label, from [B, C, D] to logits [B, C].

    Raises:
        PluginError: it is neither ``linear`` nor ``cosine``.
    """
    if is_cosine(name):
        return CosineClassifier(labels, channels, elementwise)
    return ElementwiseClassifier(labels, channels)


def start_at_prior(classifier: nn.Module, labels: LabelContext) -> None:
    """Set the biases to the log-odds of each label in the training split.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4.1. Labels are rare:
    with biases of 0, binary cross entropy spends the first epochs on pushing every logit down,
    whatever the features.

    Args:
        classifier: has a ``bias`` [C].
        labels: their counts give the prior, clamped to [1/1000, 999/1000].

    Raises:
        PluginError: the classifier has no bias that is added to its logits.
    """
    bias = None if hasattr(classifier, "angles") else getattr(classifier, "bias", None)
    if not isinstance(bias, Tensor):
        raise PluginError(
            f"prior_bias: {type(classifier).__name__} has no bias of logits to start at the prior; "
            "take a classifier with one (`head_options: {classifier: linear}`) or leave it out"
        )
    prevalence_C = torch.tensor(labels.positives) / max(labels.images, 1)
    with torch.no_grad():
        bias.copy_(prevalence_C.clamp(1e-3, 1 - 1e-3).logit())


def cosines(product: Product, x: Tensor, weight: Tensor, axis: int = -1) -> Tensor:
    """The product of vectors and weights, both scaled to length 1.

    In float32 at least, even under autocast: bfloat16 would round an angle before it is scaled.

    Args:
        product: computes scores from vectors and weights.
        x: vectors [..., D].
        weight: of any shape, with an axis of length D.
        axis: this axis of ``weight``.
    """
    x, weight = at_least_float32(x), at_least_float32(weight)
    with without_autocast(x.device.type):
        return product(functional.normalize(x, dim=-1), functional.normalize(weight, dim=axis))


def logits_of_cosines(scores: Tensor, angles: Angles) -> Tensor:
    """Cosines in [-1, 1], of any shape, to logits."""
    if angles.exponent != 1:
        # A cosine rounded to below -1 would give NaN.
        scores = 2 * ((scores + 1) / 2).clamp(min=0) ** angles.exponent - 1
    return angles.scale * scores


def elementwise(x_BCD: Tensor, weight_CD: Tensor) -> Tensor:
    """Dot product of each label's vector and weights, [B, C]; FLOP counters see this operation."""
    return torch.einsum("bcd,cd->bc", x_BCD, weight_CD)


class CosineClassifier(nn.Module):
    """Scaled cosines between vectors and one weight vector per label.

    Args:
        labels: C.
        channels: D.
        product: ``functional.linear`` for vectors [..., D] to logits [..., C], or ``elementwise``
            for each label's own vector, [B, C, D] to [B, C].

    Attributes:
        angles: scale and exponent of the logits; a loss on angles replaces them.
    """

    def __init__(self, labels: int, channels: int, product: Product = functional.linear) -> None:
        super().__init__()
        self.angles = Angles()
        self.product = product
        # Only directions count. Long weight vectors turn slowly, so all start at length 1.
        self.weight = nn.Parameter(torch.empty(labels, channels))
        nn.init.normal_(self.weight)
        with torch.no_grad():
            self.weight.copy_(functional.normalize(self.weight, dim=-1))

    def forward(self, x_D: Tensor) -> Tensor:
        """Vectors to logits."""
        return logits_of_cosines(cosines(self.product, x_D, self.weight), self.angles)


class ElementwiseClassifier(nn.Module):
    """One linear classifier per label on that label's own vector: [B, C, D] -> [B, C].

    Args:
        labels: C.
        channels: D.
    """

    def __init__(self, labels: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(labels, channels))
        self.bias = nn.Parameter(torch.empty(labels))
        bound = channels**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x_BCD: Tensor) -> Tensor:
        """Vectors to logits."""
        return elementwise(x_BCD, self.weight) + self.bias


class GroupClassifier(nn.Module):
    """Logits of C labels from K vectors, g = ceil(C / K) consecutive labels to a vector.

    Tal Ridnik et al., "ML-Decoder", WACV 2023, section 2.3 (group fully-connected). With K = C it
    is one classifier per label on that label's own vector. The first ``used`` vectors serve all
    labels; a caller may leave out the others.

    Args:
        labels: C.
        groups: K <= C.
        channels: D.
        classifier: ``linear``, or ``cosine``: the cosine of vector and weights, plus the bias, all
            scaled (Prokofiev and Sovrasov, arXiv 2209.06585).

    Attributes:
        used: ceil(C / g), the vectors that are needed.
        angles: scale and exponent, for ``cosine`` only; a loss on angles replaces them.

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
