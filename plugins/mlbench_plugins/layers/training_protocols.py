"""Training settings of groups of authors, which the recipes of several papers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlbench.types import Augmentation, Optimizer, Preprocessing, Reported, Schedule, Settings

_SINGLE_POSITIVE_DEVIATIONS = (
    "Which positive is kept (`--set label_noise.single_positive=true`) follows from a hash of the "
    "image's key, not from the authors' random numbers.",
    "The epoch is chosen on a validation part with full labels, as in their code; our part is the "
    "official list or a stratified draw, theirs a random fifth of train.",
    "Difficult labels of VOC are unknown in the test split; the authors score them as absent.",
    "Their code never scores the last incomplete batch, and counts a label without positives as 0.",
)


def single_positive(
    loss: str,
    voc2012: float,
    coco: float,
    *deviations: str,
    source: str = "table of LL (CVPR 2022), an image in its code, commit 5025d16",
    status: str = "secondary",
    **settings: Any,
) -> dict[str, Any]:
    """Recipe fields of a loss for images of which one positive label is known.

    Elijah Cole et al., "Multi-Label Learning from Single Positive Labels" (CVPR 2021), set the
    protocol; later papers adopted it.

    The mAP reported on VOC 2012 and COCO has one source and status. ``deviations`` are added to
    the shared ones, and ``settings`` replace those of the protocol.
    """
    usual = {
        "backbone": "resnet50",
        "head": "gap",
        "augmentation": (Augmentation(name="flip"),),
        "epochs": 10,
        "batch_size": 16,
        "optimizer": Optimizer(name="adam", lr=1e-5, weight_decay=0.0),
        "schedule": Schedule(name="constant"),
        "selection": "validation",
    }
    how = "ResNet-50, 448, one positive label an image, end to end"
    rows = (("voc2012", voc2012, how), ("coco", coco, f"COCO 2014, {how}"))
    same = {"metric": "mAP", "source": source, "status": status}
    return {
        "settings": Settings(**usual | settings, loss=loss),
        "dataset_options": {"voc2007": {"difficult_train": "negative"}},  # only VOC's 1 is positive
        "reported": Reported.table("dataset value note", *rows, **same),
        "deviations": (*_SINGLE_POSITIVE_DEVIATIONS, *deviations),
    }


def multi_scale(
    head: str,
    lr: float,
    milestones: tuple[int, ...],
    scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66, 0.5),
    resize: int | None = None,
    **more: Any,
) -> Settings:
    """Settings of ML-GCN's training code, which others adopted, plus the settings in ``more``.

    Zhao-Min Chen et al., "Multi-Label Image Recognition with Graph Convolutional Networks" (CVPR
    2019).
    """
    crop = {"scales": list(scales), "max_distort": 2} | ({"resize": resize} if resize else {})
    return Settings(
        backbone="resnet101",
        head=head,
        loss="bce",  # torch's MultiLabelSoftMarginLoss
        image_size=448,
        augmentation=(
            Augmentation(name="multi_scale_crop", options=crop),
            Augmentation(name="flip"),
        ),
        optimizer=Optimizer(name="sgd", lr=lr, weight_decay=1e-4, momentum=0.9),
        schedule=Schedule(name="step", milestones=milestones, gamma=0.1),
        backbone_lr_scale=0.1,
        **more,
    )


ML_GCN_BIBTEX = """@inproceedings{chen2019mlgcn,
  title     = {Multi-Label Image Recognition with Graph Convolutional Networks},
  author    = {Chen, Zhao-Min and Wei, Xiu-Shen and Wang, Peng and Guo, Yanwen},
  booktitle = {CVPR},
  year      = {2019}
}"""
NO_SNAPPING = "A size of a crop that is close to the image size is not snapped to it."
"""A deviation of ``multi_scale``."""
BEST_EPOCH = (
    "As in nearly all code of the field, the authors' scores are probably those of the best "
    "epoch on the test split; here the last epoch counts."
)
"""A deviation of most recipes."""

SEMANTIC_GRAPHS: dict[str, Any] = {
    "backbone": "resnet101",
    "loss": "bce",
    "image_size": 576,
    "preprocessing": Preprocessing(resize=640),
    "augmentation": (
        Augmentation(
            name="random_choice_crop", options={"resize": 640, "sizes": [640, 576, 512, 384, 320]}
        ),
    ),
    "epochs": 200,
    "batch_size": 4,
    "optimizer": Optimizer(name="adam", lr=1e-5, weight_decay=0.0),
    "schedule": Schedule(name="constant"),
    "frozen_stages": 4,
}
"""Settings of Tianshui Chen et al., "Learning Semantic-Specific Graph Representation for
Multi-Label Image Recognition" (ICCV 2019); ``grl`` is trained with them, too."""
ASYMMETRIC: dict[str, Any] = {
    "preprocessing": Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    "augmentation": (
        Augmentation(name="resize"),
        Augmentation(name="cutout", options={"factor": 0.5}),
        Augmentation(name="rand_augment"),
    ),
    "optimizer": Optimizer(name="adam", lr=1e-4, weight_decay=1e-4, decay_norms_and_biases=False),
    "schedule": Schedule(name="one_cycle", cycle_momentum=True),
    "ema_decay": 0.9997,
}
"""Settings of the group that made the asymmetric loss, which others adopted."""
KEEPS_BETTER = (
    "The authors keep the better one of the moving average and the plain weights by the test "
    "score; here the moving average of the last epoch counts."
)
"""A deviation from the code of that group."""
