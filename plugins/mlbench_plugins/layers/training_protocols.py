"""How groups of authors train: what the recipes of several papers share."""

from __future__ import annotations

from typing import Any

from mlbench.types import Augmentation, Optimizer, Preprocessing, Reported, Schedule

SINGLE_POSITIVE: dict[str, Any] = {
    "backbone": "resnet50",
    "head": "gap",
    "augmentation": (Augmentation(name="flip"),),
    "epochs": 10,
    "batch_size": 16,
    "optimizer": Optimizer(name="adam", lr=1e-5, weight_decay=0.0),
    "schedule": Schedule(name="constant"),
    "selection": "validation",
}
"""Settings of Elijah Cole et al., "Multi-Label Learning from Single Positive Labels" (CVPR 2021),
which later papers on single positive labels took over."""
SINGLE_POSITIVE_DATA: dict[str, dict[str, Any]] = {"voc2007": {"difficult_train": "negative"}}
"""Of VOC's lists their code reads 1 alone."""
SINGLE_POSITIVE_DEVIATIONS = (
    "Which positive is kept (`--set label_noise.single_positive=true`) follows from a hash of the "
    "image's key, not from the authors' random numbers.",
    "The epoch is chosen on a validation part with full labels, as in their code; our part is the "
    "official list or a stratified draw, theirs a random fifth of train.",
    "Difficult labels of VOC are unknown in the test split; the authors score them as absent.",
    "Their code never scores the last incomplete batch, and counts a label without positives as 0.",
)


def single_positive_scores(
    voc2012: float,
    coco: float,
    source: str = "table of LL (CVPR 2022), an image in its code, commit 5025d16",
    status: str = "secondary",
) -> tuple[Reported, ...]:
    """Scores of one method under this protocol."""
    how = "ResNet-50, 448, one positive label an image, end to end"
    return Reported.table(
        "dataset value note",
        ("voc2007", voc2012, f"VOC 2012, {how}"),
        ("coco", coco, f"COCO 2014, {how}"),
        metric="mAP",
        source=source,
        status=status,
    )


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
"""Settings of the group that made the asymmetric loss, which others took over."""
KEEPS_BETTER = (
    "The authors keep the better one of the moving average and the plain weights by the test "
    "score; here the moving average of the last epoch counts."
)
"""A deviation from the code of that group."""
