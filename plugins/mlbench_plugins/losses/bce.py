"""Binary cross entropy, one for each label."""

from __future__ import annotations

from torch import Tensor, nn

from mlbench.types import LabelContext
from mlbench_plugins.layers.loss_terms import REDUCTIONS, cross_entropy, reduce_known
from mlbench_plugins.layers.options import check_choice


class BCE(nn.Module):
    """-(1/C) sum_c [y_c log p_c + (1 - y_c) log(1 - p_c)] with p = sigmoid(logit).

    Equal to ``torch.nn.MultiLabelSoftMarginLoss``, the name that ML-GCN, ADD-GCN and MSRN train
    with; ``soft_margin`` is an alias. Where labels are unknown, C counts the known ones.

    Args:
        labels: not used.
        reduction: ``mean`` (over images and their known labels), ``image_sum`` or ``sum``.
    """

    def __init__(self, labels: LabelContext, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unknown} to a scalar in float32."""
        return reduce_known(cross_entropy(logits_BC, targets_BC), targets_BC, self.reduction)
