"""Binary cross entropy in which the positives of a rare label weigh more.

No paper of this benchmark's methods has it; it is the usual answer to unequal numbers of positives
and negatives (``pos_weight`` of ``torch.nn.BCEWithLogitsLoss``), and stands here as a baseline.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mlbench.types import LabelContext
from mlbench_plugins.layers.loss_terms import REDUCTIONS, cross_entropy, reduce_known
from mlbench_plugins.layers.options import check_choice, check_range


class WeightedBCE(nn.Module):
    """Cross entropy whose positives weigh as much in all as the negatives of the same label.

    A positive of label c weighs (n - n_c) / n_c, with n training images of which n_c have the
    label: above 1 for a label that fewer than half of the images have, below 1 for others.
    Images for which the label is unknown count among the n.

    Args:
        labels: n and, on the diagonal of the co-occurrence, n_c.
        cap: weights are kept within [1 / cap, cap], so that a handful of images does not decide a
            step. A label without a positive has the cap, one without a negative 1 / cap.
        reduction: ``mean``, ``image_sum`` or ``sum``; a mean is over the number of known labels,
            not over their weights.

    Attributes:
        pos_weight: float32 [C].
    """

    pos_weight: Tensor

    def __init__(self, labels: LabelContext, *, cap: float = 20.0, reduction: str = "mean") -> None:
        super().__init__()
        check_range("weighted_bce", "[1, inf)", cap=cap)
        positives_C = labels.positives.astype(np.float64)
        ratio_C = (labels.images - positives_C) / np.maximum(positives_C, 1)
        weight_C = np.where(positives_C > 0, ratio_C, cap).clip(1 / cap, cap)
        self.register_buffer("pos_weight", torch.from_numpy(weight_C.astype(np.float32)))
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unknown} to a scalar in float32."""
        terms_BC = cross_entropy(logits_BC, targets_BC, self.pos_weight)
        return reduce_known(terms_BC, targets_BC, self.reduction)
