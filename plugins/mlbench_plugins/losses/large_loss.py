"""Large-loss rejection and correction: unobserved labels of large loss are not negatives.

Youngwook Kim, Jae Myung Kim, Zeynep Akata, Jungwoo Lee, "Large Loss Matters in Weakly Supervised
Multi-Label Classification", CVPR 2022, arXiv 2206.03740. Written from its equations. The permanent
correction (LL-Cp) needs a state for each image and is left out.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import LabelContext, LossContext, Optimizer, PluginError, Recipe
from mlbench_plugins.layers.loss_terms import REDUCTIONS, UNOBSERVED, is_unobserved, reduce_terms
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_choice, check_range
from mlbench_plugins.layers.training_protocols import single_positive

SCHEMES = ("reject", "correct")


class LargeLoss(nn.Module):
    """Cross entropy with unobserved labels as negatives, except those of the largest loss.

    In epoch e > 1 the ceil(B C (e - 1) delta / 100) largest terms of a batch's unobserved labels
    are left out (``reject``, LL-R), or become those of positives (``correct``, LL-Ct). Observed
    labels are never changed.

    Pitfalls: the number is a share of all B x C labels of a batch, however many are unobserved, and
    batches of another size change other labels. Rejected labels still count in the mean. Long
    training rejects much: delta 0.2 for 80 epochs is 16 % of all labels, on COCO four times as many
    as are present. The released LL-Cp runs as LL-Ct, since it compares strings by identity.

    Args:
        labels: not used.
        scheme: ``reject`` or ``correct``.
        delta: percent of all labels by which the number of changed labels grows each epoch.
        unobserved: ``"-1"`` for unknown labels, or ``"0"`` for all but positives.
        reduction: ``mean`` (over images and all labels), ``image_sum`` or ``sum``.
    """

    uses_unknown = True
    separable = False
    needs = frozenset({"epoch"})
    left_out: ClassVar = {
        "scheme": {"correct_permanently": "labels that change for good are a state of each image"}
    }
    """Fields of parity fixtures -> values that are not offered, and why."""

    def __init__(
        self,
        labels: LabelContext,
        *,
        scheme: str = "reject",
        delta: float = 0.2,
        unobserved: str = "-1",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("large_loss", "[0, 100)", delta=delta)
        self.scheme = check_choice("scheme", scheme, SCHEMES)
        self.delta = delta
        self.unobserved = check_choice("unobserved", unobserved, UNOBSERVED)
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor, context: LossContext) -> Tensor:
        """Logits, targets in {1, 0, -1 unobserved} and the epoch to a scalar in float32."""
        x_BC = at_least_float32(logits_BC)
        positive_BC = targets_BC == 1
        present_BC, absent_BC = functional.softplus(-x_BC), functional.softplus(x_BC)
        terms_BC = present_BC.where(positive_BC, absent_BC)
        unobserved_BC = is_unobserved(targets_BC, self.unobserved)
        if changed := self._changed(terms_BC.numel(), context):
            losses_BC = absent_BC.detach().where(unobserved_BC, 0)
            least = losses_BC.flatten().topk(changed).values[-1]
            large_BC = unobserved_BC & (losses_BC >= least)
            terms_BC = terms_BC.where(~large_BC, 0 if self.scheme == "reject" else present_BC)
        return reduce_terms(terms_BC, self.reduction)

    def _changed(self, labels: int, context: LossContext) -> int:
        """The number of a batch's labels that change in an epoch."""
        if (context.epochs - 1) * self.delta >= 100:
            raise PluginError(
                f"large_loss: delta={self.delta} changes all labels before epoch {context.epochs}; "
                f"give a delta below {100 / (context.epochs - 1):g}"
            )
        kept = 1.0
        for _ in range(context.epoch - 1):  # as published: a product may round to one fewer
            kept -= self.delta / 100
        return math.ceil(labels * (1 - kept))


RECIPE = Recipe(
    title="Large Loss Matters in Weakly Supervised Multi-Label Classification",
    bibtex="""@inproceedings{kim2022large,
  title     = {Large Loss Matters in Weakly Supervised Multi-Label Classification},
  author    = {Kim, Youngwook and Kim, Jae Myung and Akata, Zeynep and Lee, Jungwoo},
  booktitle = {CVPR},
  year      = {2022}
}""",
    summary="A network learns right labels before wrong ones: unobserved labels of large loss are "
    "rejected or corrected, more of them each epoch.",
    **single_positive(
        *("large_loss", 89.2, 71.0),
        "delta is one value for all data sets; the authors' values for each were not verified.",
        "The scores are those of `reject`. The authors stop when validation falls 3 points below "
        "its best; here all epochs are trained and the best is scored.",
        status="verified",
        optimizer=Optimizer(name="adam", lr=1e-4, weight_decay=0.0),
        backbone_lr_scale=0.1,
    ),
)
