"""Classifiers that turn vectors into logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import Angles, LabelContext, PluginError
from mlbench_plugins.layers.autocast import without_autocast


def is_cosine(classifier: str) -> bool:
    """Whether a classifier of this name, ``linear`` or ``cosine``, works on angles.

    Raises:
        PluginError: it is neither.
    """
    if classifier not in ("linear", "cosine"):
        raise PluginError(f"there is no classifier {classifier!r}; known: linear, cosine")
    return classifier == "cosine"


def make_classifier(name: str, channels: int, labels: int) -> nn.Module:
    """The classifier of this name, from vectors [..., D] to logits [..., C].

    Raises:
        PluginError: it is neither ``linear`` nor ``cosine``.
    """
    return CosineClassifier(channels, labels) if is_cosine(name) else nn.Linear(channels, labels)


def make_elementwise(name: str, labels: int, channels: int) -> nn.Module:
    """The classifier of this name for a vector a label, from [B, C, D] to logits [B, C].

    Raises:
        PluginError: it is neither ``linear`` nor ``cosine``.
    """
    made = ElementwiseCosine if is_cosine(name) else ElementwiseClassifier
    return made(labels, channels)


def start_at_prior(classifier: nn.Module, labels: LabelContext) -> None:
    """Set the biases to the log-odds of each label in the training split.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4.1. Labels are rare:
    from a bias of 0 the first epochs of binary cross entropy are spent on pushing every logit down,
    with whatever features are at hand.

    Args:
        classifier: has a ``bias`` [C].
        labels: whose counts are the prior, kept within 1/1000 and 999/1000.

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


class CosineClassifier(nn.Module):
    """Logits made of the cosines between vectors [..., D] and a weight vector a label: [..., C].

    Args:
        channels, labels: D and C.

    Attributes:
        angles: scale and exponent of the logits; a loss on angles brings its own.
    """

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.angles = Angles()
        self.weight = nn.Parameter(torch.empty(labels, channels))
        random_directions_(self.weight)

    def forward(self, x_D: Tensor) -> Tensor:
        """Vectors to logits."""
        return logits_of_cosines(cosines(functional.linear, x_D, self.weight), self.angles)


@torch.no_grad()
def random_directions_(weight_CD: Tensor) -> None:
    """Fill with rows of length 1: only directions count, and a long vector turns slowly."""
    nn.init.normal_(weight_CD)
    weight_CD.copy_(functional.normalize(weight_CD, dim=-1))


def cosines(
    product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, axis: int = -1
) -> Tensor:
    """A product of directions: of vectors and weights, each divided by its length.

    In float32 at least, under autocast too: bfloat16 would round an angle before it is scaled.

    Args:
        product: of vectors and weights, a sum over D.
        x: vectors [..., D].
        weight: of any shape, with an axis of length D.
        axis: which one.
    """
    precision = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    with without_autocast(x.device.type):
        x = functional.normalize(x.to(precision), dim=-1)
        return product(x, functional.normalize(weight.to(precision), dim=axis))


def logits_of_cosines(scores: Tensor, angles: Angles) -> Tensor:
    """Cosines in [-1, 1], of any shape, to logits."""
    if angles.exponent != 1:
        # A rounding error below -1 has no power.
        scores = 2 * ((scores + 1) / 2).clamp(min=0) ** angles.exponent - 1
    return angles.scale * scores


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
        """Vectors to logits."""
        return _elementwise(x_BCD, self.weight) + self.bias


class ElementwiseCosine(nn.Module):
    """Logits from the cosine of each label's own vector and weights: [B, C, D] -> [B, C].

    Args:
        labels, channels: C and D.

    Attributes:
        angles: scale and exponent of the logits; a loss on angles brings its own.
    """

    def __init__(self, labels: int, channels: int) -> None:
        super().__init__()
        self.angles = Angles()
        self.weight = nn.Parameter(torch.empty(labels, channels))
        random_directions_(self.weight)

    def forward(self, x_BCD: Tensor) -> Tensor:
        """Vectors to logits."""
        return logits_of_cosines(cosines(_elementwise, x_BCD, self.weight), self.angles)


def _elementwise(x_BCD: Tensor, weight_CD: Tensor) -> Tensor:
    """A product that flop counters see, unlike ``(x * w).sum(-1)``: [B, C]."""
    return torch.einsum("bcd,cd->bc", x_BCD, weight_CD)
