"""Binary cross entropy, one for each label."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import LabelContext
from mlbench_plugins.layers.reduction import check_reduction, precise, reduce_known


class BCE(nn.Module):
    """Binary cross entropy of sigmoid(logit); torch's MultiLabelSoftMarginLoss has the same value.

    Args:
        labels: not used.
        reduction: ``mean`` (over images and their known labels), ``image_sum`` or ``sum``.
    """

    def __init__(self, labels: LabelContext, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unknown} to a scalar in float32."""
        x_BC = precise(logits_BC)
        terms_BC = functional.binary_cross_entropy_with_logits(
            x_BC, (targets_BC == 1).to(x_BC.dtype), reduction="none"
        )
        return reduce_known(terms_BC, targets_BC, self.reduction)
