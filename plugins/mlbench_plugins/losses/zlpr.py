"""ZLPR: log-sum-exp of negatives and of positives against a threshold at 0.

Jianlin Su, Mingren Zhu, Ahmed Murtadha, Shengfeng Pan, Bo Wen, Yunfeng Liu, "ZLPR: A Novel Loss for
Multi-label Classification", arXiv 2208.02955.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import LabelContext, Recipe, Settings
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_choice


class ZLPR(nn.Module):
    """log(1 + sum over negatives of e^x) + log(1 + sum over positives of e^-x), of each image.

    Unknown labels are in neither sum. Targets between 0 and 1 weigh y in the sum of positives and
    1 - y in that of negatives.

    Pitfalls: a label is predicted above a logit of 0, but sigmoid(x) is no probability. The loss of
    an image does not grow with its labels, so a learning rate tuned for a sum does not fit.

    Args:
        labels: not used.
        reduction: ``mean`` over images, or ``sum``.
    """

    def __init__(self, labels: LabelContext, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_choice("reduction", reduction, ("mean", "sum"))

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in [0, 1], or -1 unknown, to a scalar in float32."""
        x_BC = at_least_float32(logits_BC)
        y_BC, unknown_BC = targets_BC.to(x_BC.dtype), targets_BC < 0
        losses_B = torch.zeros_like(x_BC[:, 0])
        for signed_BC, weight_BC in ((x_BC, 1 - y_BC), (-x_BC, y_BC.clamp(min=0))):
            exponents_BC = (signed_BC + weight_BC.log()).masked_fill(unknown_BC, -torch.inf)
            losses_B = losses_B + functional.pad(exponents_BC, (1, 0)).logsumexp(1)  # e^0 = 1
        return losses_B.sum() if self.reduction == "sum" else losses_B.mean()


RECIPE = Recipe(
    title="ZLPR: A Novel Loss for Multi-label Classification",
    bibtex="""@article{su2022zlpr,
  title   = {{ZLPR}: A Novel Loss for Multi-label Classification},
  author  = {Su, Jianlin and Zhu, Mingren and Murtadha, Ahmed and Pan, Shengfeng and Wen, Bo and
             Liu, Yunfeng},
  journal = {arXiv:2208.02955},
  year    = {2022}
}""",
    summary="Softmax cross entropy for any number of labels: every positive is compared with 0, "
    "and 0 with every negative.",
    settings=Settings(backbone="resnet50", head="gap", loss="zlpr"),
    deviations=(
        "The authors train on text; no score on images was found, and the training is this "
        "project's default.",
    ),
)
