"""Global pooling and a linear classifier: the baselines that every method must beat.

Average pooling is the backbone's own classifier: Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun,
"Deep Residual Learning for Image Recognition", CVPR 2016. That maximum pooling is clearly stronger
where an image has several labels was reported with: Zhao-Min Chen, Xiu-Shen Wei, Peng Wang, Yanwen
Guo, "Multi-Label Image Recognition with Graph Convolutional Networks", CVPR 2019.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from mlbench.types import (
    Augmentation,
    FeatureSpec,
    HeadOutput,
    LabelContext,
    Optimizer,
    Recipe,
    Released,
    Reported,
    Schedule,
    Settings,
)
from mlbench_plugins.layers.classifiers import make_classifier, start_at_prior
from mlbench_plugins.layers.pretrained import ORDER_BY_ID, renamed, tresnet
from mlbench_plugins.layers.training_protocols import ML_GCN_BIBTEX


class PooledClassifier(nn.Module, ABC):
    """Pool the deepest map over its positions, then classify.

    Args:
        spec: levels of the backbone; the last is used.
        labels: only their number and their prior are used.
        classifier: ``linear``, or ``cosine`` for losses that work on angles.
        prior_bias: start each bias at its label's log-odds.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        classifier: str = "linear",
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        self.classifier = make_classifier(classifier, len(labels), spec[-1].channels)
        if prior_bias:
            start_at_prior(self.classifier, labels)

    @abstractmethod
    def pool(self, x_BDHW: Tensor) -> Tensor:
        """One vector an image: [B, D]."""

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        return HeadOutput(self.classifier(self.pool(features[-1])))


@final
class GAP(PooledClassifier):
    """Average the deepest map over its positions, then classify.

    The classifier is ``linear``, or ``cosine`` for losses that work on angles; with ``prior_bias``
    each bias starts at the log-odds of its label.
    """

    def pool(self, x_BDHW: Tensor) -> Tensor:
        """The mean of each channel."""
        return x_BDHW.mean(dim=(2, 3))


@final
class GMP(PooledClassifier):
    """Take the maximum of each channel of the deepest map, then classify, with options as GAP's."""

    def pool(self, x_BDHW: Tensor) -> Tensor:
        """The maximum of each channel."""
        return x_BDHW.amax(dim=(2, 3))


SETTINGS = Settings(
    backbone="resnet101",
    head="gap",
    loss="bce",
    image_size=448,
    augmentation=(
        Augmentation(name="random_resized_crop", options={"scale": [0.7, 1.0]}),
        Augmentation(name="flip"),
    ),
    epochs=40,
    batch_size=16,
    optimizer=Optimizer(name="sgd", lr=0.01, weight_decay=1e-4, momentum=0.9),
    schedule=Schedule(name="step", milestones=(15, 30), gamma=0.1),
)
"""Settings of the ResNet-101 baseline of CSRA's authors (ICCV 2021; its code, issue 17)."""

ML_GCN_README = "README of the code of ML-GCN (CVPR 2019), commit 5517d6f"


def from_asl(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The classifier of a TResNet that was trained with ASL, under the names used here."""
    return renamed(state, {f"head.fc.{name}": f"classifier.{name}" for name in ("weight", "bias")})


ASL_RELEASED = Released(
    title="ASL's TResNet-L (code commit 8c9e0bd)",
    marks=(r"^body\.conv1\.0\.", r"^head\.fc\."),
    trunk=tresnet("body."),
    head=from_asl,
    settings={
        "backbone": "tresnet_l",
        "loss": "asl",
        "preprocessing": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    },
    order=ORDER_BY_ID,
    averaged=True,
    label_axes={"classifier.bias": (0,), "classifier.weight": (0,)},
)
"""Tal Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021."""

GAP_RECIPE = Recipe(
    title="Global average pooling and a linear classifier",
    bibtex="""@inproceedings{he2016resnet,
  title     = {Deep Residual Learning for Image Recognition},
  author    = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {CVPR},
  year      = {2016}
}""",
    summary="The backbone's own classifier, with one logit a label: the weakest honest baseline.",
    settings=SETTINGS,
    tuned={"probe": {"optimizer": {"lr": 3e-3}}},
    reported=Reported.table(
        "dataset value source note",
        (
            "coco",
            79.4,
            "issue 17 of the code of CSRA (ICCV 2021)",
            "ResNet-101, 448, COCO 2014; the same code with lambda 0 gives about 81.3",
        ),
        ("coco", 77.3, ML_GCN_README, "ResNet-101, 448, COCO 2014"),
        ("voc2007", 91.7, ML_GCN_README, "ResNet-101, 448"),
        metric="mAP",
        status="verified",
    ),
    deviations=(
        "CSRA's code feeds pixels in [0, 1] without normalisation; here they are normalised as the "
        "backbone's weights expect.",
    ),
    released=(ASL_RELEASED,),
)

GMP_RECIPE = Recipe(
    title="Global maximum pooling and a linear classifier",
    bibtex=ML_GCN_BIBTEX,
    summary="The strongest response of each channel decides, wherever it is: small objects are not "
    "averaged away.",
    settings=SETTINGS.model_copy(update={"head": "gmp"}),
    tuned={"probe": {"optimizer": {"lr": 3e-3}}},
    reported=Reported.table(
        "dataset value note",
        ("coco", 81.9, "ResNet-101, 448, COCO 2014"),
        ("voc2007", 93.0, "ResNet-101, 448"),
        metric="mAP",
        source=ML_GCN_README,
        status="verified",
    ),
    deviations=(
        "The training of ML-GCN's maximum-pooling baseline is not published; the settings of the "
        "average-pooling baseline are used.",
    ),
)
