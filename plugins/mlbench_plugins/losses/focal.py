"""Focal loss: predictions that are nearly right count less.

Tsung-Yi Lin, Priya Goyal, Ross Girshick, Kaiming He, Piotr Dollár, "Focal Loss for Dense Object
Detection", ICCV 2017, arXiv 1708.02002.
"""

from __future__ import annotations

from torch import Tensor, nn

from mlbench.types import LabelContext
from mlbench_plugins.layers.loss_terms import REDUCTIONS, focal, reduce_known
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_choice, check_range


class Focal(nn.Module):
    """(1 - p_t)^gamma * -log p_t (eq. 4), where p_t is the probability given to the truth.

    p_t is p = sigmoid(logit) for a positive and 1 - p for a negative. There is no class weight
    alpha (eq. 5): the loss equals ``asl`` with equal exponents and without a margin.

    Args:
        labels: not used.
        gamma: focusing exponent; 0 is cross entropy.
        detach_focus: take the focusing weights as constants in the gradient. The paper does not.
        reduction: ``mean``, ``image_sum`` or ``sum``. (The paper divides the sum by the number of
            anchors that were assigned to an object, of which there are none here.)
    """

    def __init__(
        self,
        labels: LabelContext,
        *,
        gamma: float = 2.0,
        detach_focus: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("focal", "[0, inf)", gamma=gamma)
        self.gamma = gamma
        self.detach_focus = detach_focus
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unknown} to a scalar in float32."""
        x_BC = at_least_float32(logits_BC)
        truth_BC = x_BC.where(targets_BC == 1, -x_BC)
        terms_BC = focal(truth_BC, self.gamma, detach_focus=self.detach_focus)
        return reduce_known(terms_BC, targets_BC, self.reduction)
