"""Two-way multi-label loss: positives and negatives compared within an image and within a class.

Takumi Kobayashi, "Two-Way Multi-Label Loss", CVPR 2023. Written from its equations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import (
    Augmentation,
    LabelContext,
    Optimizer,
    Recipe,
    Reported,
    Schedule,
    Settings,
)
from mlbench_plugins.layers.numerics import at_least_float32
from mlbench_plugins.layers.options import check_range

NOTHING = -1e30
"""The logit of labels that a sum leaves out: far below all others, finite, so its gradient is 0."""


class TwoWay(nn.Module):
    """The mean of softplus(P + N) over classes, plus the mean over images, that have a positive.

    P = T_pos log sum exp(-x / T_pos) over positives and N = T_neg log sum exp(x / T_neg) over
    negatives: of a class over the images of the batch, of an image over its classes. Unknown labels
    are in neither sum.

    Pitfalls: a class's term needs many images of it in the batch. The authors have 512, in four
    processes whose class terms see 128 each; here they see the whole batch. A batch without a
    positive has the loss 0.

    Args:
        labels: not used.
        temperature_pos, temperature_neg: T_pos and T_neg.
    """

    separable = False

    def __init__(
        self, labels: LabelContext, *, temperature_pos: float = 4.0, temperature_neg: float = 1.0
    ) -> None:
        super().__init__()
        temperatures = {"temperature_pos": temperature_pos, "temperature_neg": temperature_neg}
        check_range("two_way", "(0, inf)", **temperatures)
        self.temperature_pos, self.temperature_neg = temperature_pos, temperature_neg

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Logits and targets in {1, 0, -1 unknown} to a scalar in float32."""
        x_BC = at_least_float32(logits_BC)
        return self._along(x_BC, targets_BC, 0) + self._along(x_BC, targets_BC, 1)

    def _along(self, x_BC: Tensor, targets_BC: Tensor, dim: int) -> Tensor:
        """The mean over classes (sums along dimension 0) or over images (along 1)."""
        positive_BC = targets_BC == 1
        sums = [
            temperature * scaled_BC.masked_fill(~kind_BC, NOTHING).logsumexp(dim)
            for kind_BC, scaled_BC, temperature in (
                (positive_BC, -x_BC / self.temperature_pos, self.temperature_pos),
                (targets_BC == 0, x_BC / self.temperature_neg, self.temperature_neg),
            )
        ]
        terms, counted = functional.softplus(torch.stack(sums).sum(0)), positive_BC.any(dim)
        return terms.where(counted, 0).sum() / counted.sum().clamp(min=1)


RECIPE = Recipe(
    title="Two-Way Multi-Label Loss",
    bibtex="""@inproceedings{kobayashi2023twoway,
  title     = {Two-Way Multi-Label Loss},
  author    = {Kobayashi, Takumi},
  booktitle = {CVPR},
  year      = {2023}
}""",
    summary="The weakest positive is compared with the strongest negative, within each image and "
    "within each class of the batch.",
    settings=Settings(
        backbone="resnet50",
        head="gap",
        loss="two_way",
        image_size=224,
        augmentation=(Augmentation(name="random_resized_crop"), Augmentation(name="flip")),
        epochs=40,
        batch_size=512,
        optimizer=Optimizer(name="sgd", lr=0.01, weight_decay=1e-4, momentum=0.9),
        schedule=Schedule(name="one_cycle", pct_start=0.01, div=1.0),
        backbone_lr_scale=0.1,
    ),
    reported=Reported.table(
        "dataset value note",
        ("coco", 74.11, "ResNet-50, 224, COCO 2014"),
        metric="mAP",
        source="README of tk1980/TwoWayMultiLabelLoss, commit ef8b2d6, in a copy",
        status="verified",
    ),
    deviations=(
        "The class-wise term sees the whole batch; the authors' four processes see a quarter of it "
        "each.",
        "The authors' momentum is Nesterov's, and they change colours at random, too.",
        "The cosine schedule is that of one cycle without a rise.",
    ),
)
