"""Asymmetric loss on angles: metric learning's margin and scale for many labels an image.

Kirill Prokofiev, Vladislav Sovrasov, "Combining Metric Learning and Attention Heads For Accurate
and Efficient Multilabel Image Classification", VISAPP 2023, arXiv 2209.06585. The balance k, the
scale s and the similarity adjustment t are from Yandong Wen, Weiyang Liu, Adrian Weller, Bhiksha
Raj, Rita Singh, "SphereFace2: Binary Classification is All You Need for Deep Face Recognition",
ICLR 2022, arXiv 2108.01513; the focusing and the probability margin are those of ``asl``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import Angles, LabelContext
from mlbench_plugins.layers.loss_terms import REDUCTIONS, focus, raised, reduce_known
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_choice, check_range


class AAM(nn.Module):
    """Margined, balanced and focused cross entropy of scaled cosines.

    With cos the (adjusted) cosine between the vectors of an image and of a label,
    p+ = sigmoid(s (cos - m)) and p- = sigmoid(-s (cos + m)), the term of the label is

        -(k / s) y p-^gamma_pos log p+  -  ((1 - k) / s) (1 - y) p+^gamma_neg log p-

    with gradients through the focusing weights. As in the authors' code, p- is min(p- +
    probability_margin, 1) in weights and logarithm if a gamma is above 0; and where labels are
    smoothed, both parts have one weight, of the base y p- + (1 - y) p+ and the exponent
    y gamma_pos + (1 - y) gamma_neg.

    The logits must be s cos, from a head with a cosine classifier, which takes its scale and
    exponent from ``angles``. The defaults are the authors' settings for COCO (for VOC 2007 they
    have s = 17); their reduction is ``sum``.

    Args:
        labels: not used.
        m: margin of the cosine.
        k: weight of positives; negatives weigh 1 - k.
        s: scale of the cosines.
        gamma_pos, gamma_neg: focusing exponents of positives and negatives.
        probability_margin: a negative of p- >= 1 - probability_margin has no loss.
        label_smooth: a positive's y is 1 - label_smooth and a negative's is label_smooth.
        t: exponent of the similarity adjustment 2 ((cos + 1) / 2)^t - 1; 1 adjusts nothing.
        reduction: ``mean``, ``image_sum`` or ``sum``.

    Attributes:
        angles: s and t.
    """

    def __init__(
        self,
        labels: LabelContext,
        *,
        m: float = 0.0,
        k: float = 0.7,
        s: float = 23.0,
        gamma_pos: float = 0.0,
        gamma_neg: float = 0.0,
        probability_margin: float = 0.05,
        label_smooth: float = 0.0,
        t: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_range("aam", "[0, 1]", m=m, k=k)
        check_range("aam", "[1, 1000]", s=s)
        check_range("aam", "[0, 100]", gamma_pos=gamma_pos, gamma_neg=gamma_neg)
        check_range("aam", "[0, 0.99]", probability_margin=probability_margin)
        check_range("aam", "[0, 0.5]", label_smooth=label_smooth)
        check_range("aam", "[1, 100]", t=t)
        self.angles = Angles(scale=float(s), exponent=float(t))
        self.m, self.k = m, k
        self.gamma_pos, self.gamma_neg = gamma_pos, gamma_neg
        self.probability_margin = probability_margin if gamma_pos or gamma_neg else 0.0
        self.label_smooth = label_smooth
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits s cos and targets in {1, 0, -1 unknown} to a scalar in float32."""
        z_BC = at_least_float32(logits_BC)
        scale = self.angles.scale
        log_pos_BC = functional.logsigmoid(z_BC - scale * self.m)
        log_neg_BC = functional.logsigmoid(-(z_BC + scale * self.m))
        if self.probability_margin:
            log_neg_BC = raised(log_neg_BC, self.probability_margin)
        smooth = self.label_smooth
        y_BC = (targets_BC == 1).to(z_BC.dtype) * (1 - 2 * smooth) + smooth
        # Where y is 0 or 1, one of the two logarithms is -inf and adds nothing.
        log_miss_BC = torch.logaddexp(y_BC.log() + log_neg_BC, (1 - y_BC).log() + log_pos_BC)
        gamma_BC = self.gamma_pos * y_BC + self.gamma_neg * (1 - y_BC)
        log_p_BC = self.k * y_BC * log_pos_BC + (1 - self.k) * (1 - y_BC) * log_neg_BC
        terms_BC = -focus(log_miss_BC, gamma_BC) * log_p_BC / scale
        return reduce_known(terms_BC, targets_BC, self.reduction)
