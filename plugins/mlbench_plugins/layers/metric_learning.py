"""Citation, training and parity outputs that the heads of Prokofiev and Sovrasov share.

Kirill Prokofiev, Vladislav Sovrasov, "Combining Metric Learning and Attention Heads For Accurate
and Efficient Multilabel Image Classification", VISAPP 2023, arXiv 2209.06585.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlbench.types import Augmentation, Optimizer, Preprocessing, Proof, Schedule, Settings

if TYPE_CHECKING:
    from torch import Tensor


def unscaled(proof: Proof) -> Tensor:
    """Logits, before the scale of a cosine classifier, as the authors' models return them."""
    logits_BC: Tensor = proof.head(proof.features).logits
    angles = getattr(proof.head.classifier, "angles", None)
    return logits_BC if angles is None else logits_BC / angles.scale


def shared_fields(head: str, **head_options: Any) -> dict[str, Any]:
    """Fields of the recipe of one of their heads; the settings are the paper's for COCO."""
    settings = Settings(
        backbone="efficientnetv2_s",
        head=head,
        head_options=head_options,
        loss="aam",
        loss_options={"s": 23.0, "reduction": "sum"},
        image_size=448,
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        augmentation=(
            Augmentation(name="resize"),
            Augmentation(name="rand_augment"),
            Augmentation(name="cutout", options={"factor": 0.4, "p": 0.5}),
            Augmentation(name="flip"),
        ),
        epochs=60,
        batch_size=84,
        optimizer=Optimizer(
            name="sgd",
            lr=0.007,
            weight_decay=5e-4,
            momentum=0.9,
            decay_norms_and_biases=False,
            bias_lr_scale=2.0,
        ),
        schedule=Schedule(name="one_cycle", pct_start=0.2, div=100.0, final_div=1000.0),
        ema_decay=0.9997,
        sam_rho=0.05,
    )
    voc = {"optimizer": {"lr": 0.005}, "loss_options": {"s": 17.0}, "ema_decay": 0.9993}
    return {
        "title": "Combining Metric Learning and Attention Heads For Accurate and Efficient "
        "Multilabel Image Classification",
        "bibtex": BIBTEX,
        "settings": settings,
        "per_dataset": {"voc2007": voc},
        "dataset_options": {"voc2007": {"difficult_train": "positive"}},
    }


DEVIATIONS = (
    "The authors stop once the test score no longer rises, and keep the best epoch and the better "
    "one of the moving average and the plain weights; here the moving average of the last epoch "
    "counts.",
    "On VOC the authors count difficult objects as positives in the test split too; here they are "
    "unknown there, as in the official evaluation.",
)
BIBTEX = """@inproceedings{prokofiev2023combining,
  title     = {Combining Metric Learning and Attention Heads For Accurate and Efficient Multilabel
               Image Classification},
  author    = {Prokofiev, Kirill and Sovrasov, Vladislav},
  booktitle = {VISAPP},
  year      = {2023}
}"""
