"""CSRA: average pooling of the class scores plus attention of each class to its own scores.

Ke Zhu, Jianxin Wu, "Residual Attention: A Simple but Effective Method for Multi-Label
Recognition", ICCV 2021, arXiv 2108.02456.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import (
    Augmentation,
    FeatureSpec,
    HeadOutput,
    LabelContext,
    Optimizer,
    PluginError,
    Preprocessing,
    Recipe,
    Released,
    Reported,
    Schedule,
    Settings,
)
from mlbench_plugins.layers.numerics import chunk_size
from mlbench_plugins.layers.options import check_range
from mlbench_plugins.layers.pretrained import ORDER_BY_ID, resnet
from mlbench_plugins.layers.training_protocols import BEST_EPOCH

TEMPERATURES: Mapping[int, tuple[float, ...]] = {
    1: (1.0,),
    2: (1.0, math.inf),
    4: (1.0, 2.0, 4.0, math.inf),
    6: (1.0, 2.0, 3.0, 4.0, 5.0, math.inf),
    8: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, math.inf),
}
"""Number of heads -> their temperatures T. The maximum, T = inf, is the authors' T = 99."""


class CSRA(nn.Module):
    """Class scores at each position, pooled by average and by class-specific attention.

    Args:
        spec: levels of the backbone; the last, of D channels, is used.
        labels: only their number is used.
        heads: number of classifiers (1, 2, 4, 6 or 8), each with its own temperature; they add up.
        lam: weight of the attention beside the average; 0 leaves average pooling.
    """

    def __init__(
        self, spec: FeatureSpec, labels: LabelContext, *, heads: int = 1, lam: float = 0.1
    ) -> None:
        super().__init__()
        if heads not in TEMPERATURES:
            raise PluginError(
                f"csra: heads={heads}; the paper gives temperatures for "
                f"{', '.join(map(str, TEMPERATURES))} heads only"
            )
        check_range("csra", "[0, inf)", lam=lam)
        self.temperatures = TEMPERATURES[heads]
        self.lam = lam
        channels = spec[-1].channels
        self.weight = nn.Parameter(torch.empty(heads, len(labels), channels))
        bound = channels**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        heads = zip(self._scores(features[-1].flatten(2)), self.temperatures, strict=True)
        logits_TBC = [self._pool(scores_BCN, T) for scores_BCN, T in heads]
        return HeadOutput(torch.stack(logits_TBC).sum(dim=0))  # section 3.3

    def _scores(self, x_BDN: Tensor) -> Iterator[Tensor]:
        """Yield each head's class scores [B, C, N]; heads share one product while it is small."""
        # As in the authors' code, only the direction of a classifier's weights counts.
        weight_TCD = functional.normalize(self.weight, dim=-1)
        labels = weight_TCD.shape[1]
        for weight_GCD in weight_TCD.split(chunk_size(x_BDN[:, 0].numel() * labels, x_BDN)):
            scores_BGCN = (weight_GCD.flatten(0, 1) @ x_BDN).unflatten(1, (-1, labels))
            yield from scores_BGCN.unbind(dim=1)

    def _pool(self, scores_BCN: Tensor, temperature: float) -> Tensor:
        """A head's logits: the average plus ``lam`` times the attention, eq. 8."""
        average_BC = scores_BCN.mean(dim=-1)
        if temperature == math.inf:
            return average_BC + self.lam * scores_BCN.amax(dim=-1)
        attention_BCN = (temperature * scores_BCN).softmax(dim=-1).to(scores_BCN.dtype)
        # A product that flop counters see.
        attended_BC = torch.einsum("bcn,bcn->bc", attention_BCN, scores_BCN)
        return average_BC + self.lam * attended_BC


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of an authors' state dict under the names used here.

    The tensors ``multi_head.T.head.weight`` [C, D, 1, 1], perhaps behind ``classifier.``, are
    stacked in their order into one tensor [heads, C, D].
    """
    found = {int(m[1]): value for key, value in state.items() if (m := AUTHORS.fullmatch(key))}
    heads = [found[i].flatten(1) for i in sorted(found)]
    return {"weight": torch.stack(heads)} if heads else {}


AUTHORS = re.compile(r"(?:module\.)?(?:classifier\.)?multi_head\.(\d+)\.head\.weight")
"""Name of a head's classifier in the authors' checkpoints."""

README = "README of the authors' code, commit c8480d1"
"""Where the authors' scores were read."""

RELEASED = Released(
    title="CSRA (code commit c8480d1)",
    marks=(r"^classifier\.multi_head\.0\.", r"^layer4\."),
    trunk=resnet(),
    head=from_authors,
    options=lambda state: {"heads": sum(AUTHORS.fullmatch(key) is not None for key in state)},
    unused=(r"^fc\.",),
    order=ORDER_BY_ID,
    label_axes={"weight": (1,)},
)

RECIPE = Recipe(
    title="Residual Attention: A Simple but Effective Method for Multi-Label Recognition",
    bibtex="""@inproceedings{zhu2021csra,
  title     = {Residual Attention: A Simple but Effective Method for Multi-Label Recognition},
  author    = {Zhu, Ke and Wu, Jianxin},
  booktitle = {ICCV},
  year      = {2021}
}""",
    summary="Each class attends to the positions where its own score is high, at several "
    "temperatures, and adds what it finds to the average over all positions; the classifier is all "
    "that is learned.",
    settings=Settings(
        backbone="resnet101",
        head="csra",
        head_options={"heads": 1, "lam": 0.1},
        loss="bce",
        image_size=448,
        preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        augmentation=(
            Augmentation(name="flip"),
            Augmentation(name="random_resized_crop", options={"scale": [0.7, 1.0]}),
        ),
        epochs=30,
        batch_size=16,
        optimizer=Optimizer(name="sgd", lr=0.1, weight_decay=1e-4, momentum=0.9),
        schedule=Schedule(
            name="step", warmup=2.0, milestones=(4, 8, 12, 16, 20, 24, 28), gamma=0.1
        ),
        backbone_lr_scale=0.1,
    ),
    per_dataset={
        "coco": {
            "head_options": {"heads": 4, "lam": 0.5},
            "schedule": {"milestones": (5, 10, 15, 20, 25)},
        },
    },
    dataset_options={"voc2007": {"difficult_train": "negative"}},
    tuned={"probe": {"optimizer": {"lr": 3e-3}}},
    reported=Reported.table(
        "dataset value note",
        ("voc2007", 94.7, "ResNet-101, 448, 1 head"),
        ("voc2007", 95.2, "ResNet-101 pretrained with CutMix, 448, 1 head"),
        ("voc2007", 96.8, "the same with extra training data"),
        ("coco", 83.3, "ResNet-101, 448, 4 heads"),
        ("coco", 85.6, "ResNet-101 pretrained with CutMix, 448, 6 heads"),
        ("coco", 86.5, "ViT-L/16, 448, 8 heads"),
        metric="mAP",
        source=README,
        status="verified",
    ),
    deviations=(
        "On COCO with ResNet-101 the authors' table and text say 4 heads while their command has "
        "6; here it is 4, the row that the score stands in, with the command's lambda of 0.5.",
        "With a CutMix backbone the authors take lambda 0.4 and 6 heads on COCO.",
        "Like the authors' training, this recipe feeds pixels in [0, 1] without the backbone's "
        "usual normalisation.",
        "The maximum (the authors' temperature of 99) shares its gradient among equal positions.",
        "The learning rate falls every 4 epochs (5 on COCO), counted from the start; a warm-up of "
        "2 epochs multiplies it at every step.",
        BEST_EPOCH,
    ),
    released=(RELEASED,),
)
