"""The multi-label soft margin loss: binary cross entropy under the name that papers train with.

ML-GCN (Chen et al., CVPR 2019), ADD-GCN (Ye et al., ECCV 2020) and MSRN (Qu et al., 2021) name
``torch.nn.MultiLabelSoftMarginLoss``, and their recipes say so.
"""

from __future__ import annotations

from torch import Tensor, nn

from mlbench.types import LabelContext
from mlbench_plugins.layers.cross_entropy import cross_entropy
from mlbench_plugins.layers.reduction import check_reduction, reduce_known


class SoftMargin(nn.Module):
    """The same function as ``bce``: a run with either gives the same numbers.

    -(1/C) sum_c [y_c log p_c + (1 - y_c) log(1 - p_c)] with p = sigmoid(logit), a mean over the
    labels of an image and then over images. Where labels are unknown, C counts the known ones.

    Args:
        labels: not used.
        reduction: ``mean`` (torch's), ``image_sum`` or ``sum``.
    """

    def __init__(self, labels: LabelContext, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unknown} to a scalar in float32."""
        return reduce_known(cross_entropy(logits_BC, targets_BC), targets_BC, self.reduction)
