"""Unobserved labels taken as negatives: plainly, with smoothed labels, or with little weight.

Elijah Cole, Oisin Mac Aodha, Titouan Lorieul, Pietro Perona, Dan Morris, Nebojsa Jojic,
"Multi-Label Learning from Single Positive Labels", CVPR 2021, arXiv 2106.09708.
"""

from __future__ import annotations

from torch import Tensor, nn

from mlbench.types import LabelContext, Recipe
from mlbench_plugins.layers.loss_terms import (
    REDUCTIONS,
    UNOBSERVED,
    floored_cross_entropy,
    is_unobserved,
    reduce_terms,
)
from mlbench_plugins.layers.options import check_choice, check_range
from mlbench_plugins.layers.training_protocols import single_positive


class AssumeNegative(nn.Module):
    """L_AN: -log(p + eps) of positives, -log(1 - p + eps) of all other labels.

    Pitfalls: with the published eps a positive with a logit below -11.5 gets no gradient, so a
    confidently missed positive is not learned. Most labels that it takes as negatives are absent,
    which makes it the baseline to beat.

    Args:
        labels: not used.
        eps: added to probabilities in logarithms.
        reduction: ``mean`` (over images and all labels), ``image_sum`` or ``sum``.
    """

    uses_unknown = True

    def __init__(self, labels: LabelContext, *, eps: float = 1e-5, reduction: str = "mean") -> None:
        super().__init__()
        check_range("an", "[1e-30, 1)", eps=eps)
        self.eps = eps
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unobserved} to a scalar in float32."""
        present_BC, absent_BC = floored_cross_entropy(logits_BC, self.eps)
        return reduce_terms(present_BC.where(targets_BC == 1, absent_BC), self.reduction)


class SmoothedNegative(nn.Module):
    """L_AN-LS: ``an`` with a share ``smoothing`` of each label's weight on its opposite.

    Pitfalls: the whole share moves, not half of it as in multi-class smoothing; scores at a
    threshold of 0.5 mean little, as nothing is pushed beyond 1 - smoothing.

    Args:
        labels: not used.
        smoothing: share for positives and for all other labels.
        eps, reduction: as in ``an``.
    """

    uses_unknown = True

    def __init__(
        self,
        labels: LabelContext,
        *,
        smoothing: float = 0.1,
        eps: float = 1e-5,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("an_ls", "[0, 0.5]", smoothing=smoothing)
        check_range("an_ls", "[1e-30, 1)", eps=eps)
        self.smoothing, self.eps = smoothing, eps
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unobserved} to a scalar in float32."""
        present_BC, absent_BC = floored_cross_entropy(logits_BC, self.eps)
        positive_BC = targets_BC == 1
        right_BC = present_BC.where(positive_BC, absent_BC)
        wrong_BC = absent_BC.where(positive_BC, present_BC)
        terms_BC = (1 - self.smoothing) * right_BC + self.smoothing * wrong_BC
        return reduce_terms(terms_BC, self.reduction)


class WeakNegative(nn.Module):
    """L_WAN: ``an`` in which an unobserved label weighs 1 / (C - 1) of an observed one.

    An image with one positive then weighs positives and negatives alike. A label that is confirmed
    to be absent weighs 1; the authors' data have none.

    Pitfalls: probabilities are far too high, as negatives hardly count; where an image has more
    than one known positive, the weights no longer balance.

    Args:
        labels: their number is C.
        unobserved: ``"-1"`` for unknown labels, or ``"0"`` for all but positives.
        eps, reduction: as in ``an``.
    """

    uses_unknown = True

    def __init__(
        self,
        labels: LabelContext,
        *,
        unobserved: str = "-1",
        eps: float = 1e-5,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("wan", "[1e-30, 1)", eps=eps)
        self.unobserved = check_choice("unobserved", unobserved, UNOBSERVED)
        self.eps = eps
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unobserved} to a scalar in float32."""
        present_BC, absent_BC = floored_cross_entropy(logits_BC, self.eps)
        others = max(targets_BC.shape[1] - 1, 1)
        weak_BC = absent_BC.where(~is_unobserved(targets_BC, self.unobserved), absent_BC / others)
        return reduce_terms(present_BC.where(targets_BC == 1, weak_BC), self.reduction)


SEARCHED = (
    "Rate and batch size are one pair for all data sets; the authors search four rates and two "
    "batch sizes on validation."
)
TITLE = "Multi-Label Learning from Single Positive Labels"
BIBTEX = """@inproceedings{cole2021single,
  title     = {Multi-Label Learning from Single Positive Labels},
  author    = {Cole, Elijah and Mac Aodha, Oisin and Lorieul, Titouan and Perona, Pietro and
               Morris, Dan and Jojic, Nebojsa},
  booktitle = {CVPR},
  year      = {2021}
}"""

AN_RECIPE = Recipe(
    title=TITLE,
    bibtex=BIBTEX,
    summary="Every label that was not observed is taken to be absent.",
    **single_positive("an", 85.1, 64.1, SEARCHED),
)

AN_LS_RECIPE = Recipe(
    title=TITLE,
    bibtex=BIBTEX,
    summary="Unobserved labels are taken to be absent, and all labels are smoothed, so that wrong "
    "negatives pull less.",
    **single_positive("an_ls", 86.7, 66.9, SEARCHED),
)

WAN_RECIPE = Recipe(
    title=TITLE,
    bibtex=BIBTEX,
    summary="Unobserved labels are taken to be absent with so little weight that all of an image "
    "weigh as much as its one positive.",
    **single_positive("wan", 86.5, 64.8, SEARCHED),
)
