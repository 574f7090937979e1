"""Entropy maximization: unobserved labels are pushed to neither side.

Donghao Zhou, Pengfei Chen, Qiong Wang, Guangyong Chen, Pheng-Ann Heng, "Acknowledging the Unknown
for Multi-label Learning with Single Positive Labels", ECCV 2022, arXiv 2203.16219. Their
pseudo-labels (APL) need a state for each image and are left out.
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
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_choice, check_range
from mlbench_plugins.layers.training_protocols import single_positive


class EntropyMaximization(nn.Module):
    """-log(p + eps) of positives, minus ``alpha`` times the entropy of each unobserved label.

    A label that is confirmed to be absent has -log(1 - p + eps); the authors' data have none.

    Pitfalls: the loss becomes negative. Nothing pushes an unobserved label down, so its probability
    stays near 0.5: use a threshold of 0.75 (the authors' README), not 0.5. mAP needs no threshold
    and is not affected.

    Args:
        labels: not used.
        alpha: weight of the entropy; the authors have 0.2 on VOC, 0.1 on COCO and NUS-WIDE.
        unobserved: ``"-1"`` for unknown labels, or ``"0"`` for all but positives.
        eps: added to probabilities in logarithms.
        reduction: ``mean`` (over images and all labels), ``image_sum`` or ``sum``.
    """

    uses_unknown = True

    def __init__(
        self,
        labels: LabelContext,
        *,
        alpha: float = 0.1,
        unobserved: str = "-1",
        eps: float = 1e-5,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("em", "[0, inf)", alpha=alpha)
        check_range("em", "[1e-30, 1)", eps=eps)
        self.alpha, self.eps = alpha, eps
        self.unobserved = check_choice("unobserved", unobserved, UNOBSERVED)
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unobserved} to a scalar in float32."""
        present_BC, absent_BC = floored_cross_entropy(logits_BC, self.eps)
        x_BC = at_least_float32(logits_BC)
        entropy_BC = x_BC.sigmoid() * present_BC + (-x_BC).sigmoid() * absent_BC
        rest_BC = absent_BC.where(
            ~is_unobserved(targets_BC, self.unobserved), -self.alpha * entropy_BC
        )
        return reduce_terms(present_BC.where(targets_BC == 1, rest_BC), self.reduction)


RECIPE = Recipe(
    title="Acknowledging the Unknown for Multi-label Learning with Single Positive Labels",
    bibtex="""@inproceedings{zhou2022acknowledging,
  title     = {Acknowledging the Unknown for Multi-label Learning with Single Positive Labels},
  author    = {Zhou, Donghao and Chen, Pengfei and Wang, Qiong and Chen, Guangyong and
               Heng, Pheng-Ann},
  booktitle = {ECCV},
  year      = {2022}
}""",
    summary="Unobserved labels are unknown, not absent; the entropy of their predictions is "
    "maximized.",
    per_dataset={"voc2007": {"batch_size": 8, "loss_options": {"alpha": 0.2}}},
    **single_positive(
        *("em", 89.09, 70.7),
        "The authors stop at the first epoch whose validation mAP is not better; here all epochs "
        "are trained and the best is scored.",
        source="README of mvrl/VLPL",
    ),
)
