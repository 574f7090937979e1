"""Asymmetric loss: easy negatives count less than positives, and very easy ones not at all.

Tal Ridnik, Emanuel Ben-Baruch, Nadav Zamir, Asaf Noy, Itamar Friedman, Matan Protter,
Lihi Zelnik-Manor, "Asymmetric Loss For Multi-Label Classification", ICCV 2021, arXiv 2009.14119.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import LabelContext
from mlbench_plugins.layers.loss_terms import REDUCTIONS, raised, reduce_known
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_choice, check_range


class ASL(nn.Module):
    """Focal losses of unequal exponents for positives and negatives, with a probability margin.

    With p = sigmoid(x) and the shifted p_m = max(p - clip, 0) (eq. 5), a positive's term is
    (1 - p)^gamma_pos * -log p and a negative's p_m^gamma_neg * -log(1 - p_m) (eq. 6).
    Computed from logits in float32, so that it stays finite, with a gradient, for any logit.

    Args:
        labels: not used.
        gamma_neg, gamma_pos: focusing exponents of negatives and positives.
        clip: the margin; a negative of p <= clip has no loss.
        detach_focus: take the focusing weights as constants in the gradient, as the published
            training does (``disable_torch_grad_focal_loss``).
        eps: floor of the probability inside the logarithm. The published loss has 1e-8, which
            takes the gradient away from positives of x < -18.4; 0 has no floor.
        reduction: ``mean``, ``image_sum`` or ``sum`` (the published loss).
    """

    fixture_names: ClassVar = {"detach_focal_weight": "detach_focus"}
    """Fields of parity fixtures -> options here."""

    def __init__(
        self,
        labels: LabelContext,
        *,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        detach_focus: bool = True,
        eps: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("asl", "[0, inf)", gamma_neg=gamma_neg, gamma_pos=gamma_pos)
        check_range("asl", "[0, 1)", clip=clip, eps=eps)
        self.gamma_neg, self.gamma_pos = gamma_neg, gamma_pos
        self.clip = clip
        self.detach_focus = detach_focus
        self.log_floor = math.log(eps) if eps else -math.inf
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unknown} to a scalar in float32."""
        x_BC = at_least_float32(logits_BC)
        positive_BC = targets_BC == 1
        log_p_BC = functional.logsigmoid(x_BC.where(positive_BC, -x_BC))
        if self.clip:
            log_p_BC = log_p_BC.where(positive_BC, raised(log_p_BC, self.clip))
        if self.log_floor > -math.inf:
            log_p_BC = log_p_BC.clamp(min=self.log_floor)
        weight_BC = self._focus(x_BC.detach() if self.detach_focus else x_BC, positive_BC)
        return -reduce_known(weight_BC * log_p_BC, targets_BC, self.reduction)

    def _focus(self, x_BC: Tensor, positive_BC: Tensor) -> Tensor:
        """(1 - p_t)^gamma, where p_t is the (shifted) probability of the truth."""
        miss_neg_BC = (x_BC.sigmoid() - self.clip).clamp(min=0)
        weight_BC = _power(miss_neg_BC, self.gamma_neg)
        if self.gamma_pos == 0:
            return weight_BC.masked_fill(positive_BC, 1.0)
        return _power((-x_BC).sigmoid(), self.gamma_pos).where(positive_BC, weight_BC)


def _power(base_BC: Tensor, exponent: float) -> Tensor:
    """Base ** exponent for base >= 0, with gradient 0 instead of infinity at base 0."""
    if exponent > 0 and not base_BC.requires_grad:
        return base_BC.pow(exponent)
    empty_BC = base_BC == 0
    if exponent == 0:
        return (~empty_BC).to(base_BC.dtype)
    return base_BC.masked_fill(empty_BC, 1.0).pow(exponent).masked_fill(empty_BC, 0.0)
