"""Query2Label: a transformer decoder with one learned query a label.

Shilong Liu, Lei Zhang, Xiao Yang, Hang Su, Jun Zhu, "Query2Label: A Simple Transformer Way to
Multi-Label Classification", arXiv 2107.10834, 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlbench.types import (
    Augmentation,
    FeatureSpec,
    HeadOutput,
    LabelContext,
    Optimizer,
    Proof,
    Recipe,
    Released,
    Reported,
    Schedule,
    Settings,
)
from mlbench_plugins.layers.classifiers import GroupClassifier, start_at_prior
from mlbench_plugins.layers.options import check_range
from mlbench_plugins.layers.pretrained import ORDER_BY_ID, Trunk, renamed_by, resnet, tresnet
from mlbench_plugins.layers.transformer import DecoderLayer, EncoderLayer, projection, sine_position


class Query2Label(nn.Module):
    """Encode the deepest map, let each label's query attend to it, classify each label's vector.

    Args:
        spec: levels of the backbone; the last is used.
        labels: only their number is used.
        hidden_dim: width after a 1 x 1 convolution; None takes the map as it is, as the
            published models do. A multiple of 4 and of ``heads``.
        heads: number of heads of every attention.
        encoder_layers: their number, which may be 0.
        decoder_layers: their number, at least 1.
        feedforward: width of the hidden layers.
        dropout: everywhere in the transformer.
        keep_first_self_attention: labels attend to each other in the first decoder layer, where
            their vectors are still 0; the published models do without.
        keep_other_self_attention: the same for the other decoder layers.
        classifier: ``linear``, or ``cosine`` for losses that work on angles.
        prior_bias: start each bias at its label's log-odds.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        hidden_dim: int | None = None,
        heads: int = 4,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        feedforward: int = 8192,
        dropout: float = 0.1,
        keep_first_self_attention: bool = False,
        keep_other_self_attention: bool = False,
        classifier: str = "linear",
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        channels, count = spec[-1].channels, len(labels)
        width, self.project = projection("query2label", channels, hidden_dim, heads, placed=True)
        check_range("query2label", "[1, inf)", decoder_layers=decoder_layers)
        check_range("query2label", "[1, inf)", feedforward=feedforward)
        check_range("query2label", "[0, inf)", encoder_layers=encoder_layers)
        check_range("query2label", "[0, 1)", dropout=dropout)
        sizes = (width, heads, feedforward, dropout)
        attend = [keep_first_self_attention, *[keep_other_self_attention] * (decoder_layers - 1)]
        self.dropout = dropout
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, self_attention=s) for s in attend)
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(count, width))
        self.classifier = GroupClassifier(count, count, width, classifier)
        if prior_bias:
            start_at_prior(self.classifier, labels)
        for parameter in [*self.encoder.parameters(), *self.decoder.parameters()]:
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        x_BDHW = self.project(features[-1])
        batch, width, rows, columns = x_BDHW.shape
        position_ND = sine_position(width, rows, columns, like=x_BDHW)
        x_BND = x_BDHW.flatten(2).transpose(1, 2)
        for layer in self.encoder:
            x_BND = layer(x_BND, position_ND)
        key_BND = x_BND + position_ND
        # Before the first cross-attention, only dropout makes labels differ between images.
        distinct = batch if self.training and self.dropout else 1
        t_BCD = self.queries.new_zeros(distinct, *self.queries.shape)
        for layer in self.decoder:
            t_BCD = layer(t_BCD, self.queries, key_BND, x_BND)
        return HeadOutput(self.classifier(self.norm(t_BCD)))


LAYER = r"transformer\.(encoder|decoder)\.layers\.(\d+)\."
AUTHORS = {
    LAYER + r"self_attn\.": r"\1.\2.self_attention.attention.",
    LAYER + r"norm1\.": r"\1.\2.self_attention.norm.",
    LAYER + r"multihead_attn\.": r"\1.\2.cross_attention.attention.",
    LAYER + r"(linear[12])\.": r"\1.\2.feedforward.\3.",
    r"transformer\.encoder\.layers\.(\d+)\.norm2\.": r"encoder.\1.feedforward.norm.",
    r"transformer\.decoder\.layers\.(\d+)\.norm2\.": r"decoder.\1.cross_attention.norm.",
    r"transformer\.decoder\.layers\.(\d+)\.norm3\.": r"decoder.\1.feedforward.norm.",
    r"transformer\.decoder\.norm\.": r"norm.",
    r"input_proj\.": r"project.",
    r"query_embed\.weight": r"queries",
    r"fc\.W": r"classifier.weight",
    r"fc\.b": r"classifier.bias",
}
"""Beginnings of keys in the authors' checkpoints -> beginnings here."""


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of an authors' state dict under the names used here.

    The position code under ``backbone.1.pe``, which belongs to one image size, is left out.
    """
    found = renamed_by(AUTHORS, state)
    if "classifier.weight" in found:
        # [1, C, D] and [1, C] there.
        found["classifier.weight"] = found["classifier.weight"].squeeze(0).unsqueeze(-1)
        found["classifier.bias"] = found["classifier.bias"].squeeze(0)
    return found


TABLE = "Table 1 as an image in the authors' code, commit 55eb050"
"""Where the authors' scores were read."""


def _options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the options, except the number of heads, from the shapes of the authors' tensors."""
    parts = {m.groups() for key in state if (m := re.fullmatch(LAYER + "(.+)", key))}
    decoders = {i for stack, i, _ in parts if stack == "decoder"}
    attending = {i for s, i, name in parts if s == "decoder" and name.startswith("self_attn.")}
    projection = state.get("input_proj.weight")
    return {
        "hidden_dim": None if projection is None else len(projection),
        "encoder_layers": len({i for stack, i, _ in parts if stack == "encoder"}),
        "decoder_layers": len(decoders),
        "feedforward": len(state["transformer.decoder.layers.0.linear1.bias"]),
        "keep_first_self_attention": "0" in attending,
        "keep_other_self_attention": bool(attending - {"0"}),
    }


def _position(proof: Proof) -> Tensor:
    """The position code [1, D, H, W] of the deepest map, as the head sees it."""
    x_BDHW: Tensor = proof.head.project(proof.features[-1])
    _, width, rows, columns = x_BDHW.shape
    code_ND = sine_position(width, rows, columns, like=x_BDHW)
    code_DHW: Tensor = code_ND.T.unflatten(1, (rows, columns))
    return code_DHW[None]


def _released(title: str, mark: str, trunk: Trunk, settings: Mapping[str, Any]) -> Released:
    return Released(
        title=f"Query2Label, {title} (code commit 55eb050)",
        marks=(mark, r"^transformer\.decoder\.", r"^fc\.W$"),
        trunk=trunk,
        head=from_authors,
        options=_options,
        settings=settings,
        unused=(r"^backbone\.1\.pe$",),
        order=ORDER_BY_ID,
        averaged=True,
        label_axes={"classifier.bias": (0,), "classifier.weight": (0,), "queries": (0,)},
        outputs={"position": _position},
    )


RELEASED = (
    _released("ResNet-101", r"^backbone\.0\.body\.layer1\.", resnet("backbone.0.body."), {}),
    _released(
        "TResNet-L",
        r"^backbone\.0\.body\.body\.",
        tresnet("backbone.0.body.body."),
        {
            "backbone": "tresnet_l",
            "preprocessing": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        },
    ),
)

RECIPE = Recipe(
    title="Query2Label: A Simple Transformer Way to Multi-Label Classification",
    bibtex="""@article{liu2021query2label,
  title   = {{Query2Label}: A Simple Transformer Way to Multi-Label Classification},
  author  = {Liu, Shilong and Zhang, Lei and Yang, Xiao and Su, Hang and Zhu, Jun},
  journal = {arXiv preprint arXiv:2107.10834},
  year    = {2021}
}""",
    summary="One learned query a label attends to the encoded map in a transformer decoder without "
    "self-attention, and each label's vector has its own classifier.",
    settings=Settings(
        backbone="resnet101",
        head="query2label",
        loss="asl",
        loss_options={"gamma_neg": 2.0, "gamma_pos": 0.0, "clip": 0.0, "eps": 1e-5},
        image_size=448,
        augmentation=(Augmentation(name="resize"), Augmentation(name="rand_augment")),
        epochs=80,
        batch_size=64,
        optimizer=Optimizer(name="adamw", lr=1e-4, weight_decay=1e-2),
        schedule=Schedule(name="one_cycle", pct_start=0.2, cycle_momentum=True),
        frozen_stages=2,
        freeze_bn=True,
        ema_decay=0.9997,
    ),
    dataset_options={"coco": {"unlabelled": True}},
    # At full width the head has 150 million weights, too many for frozen maps.
    tuned={
        "probe": {
            "optimizer": {"lr": 3e-3},
            "head_options": {"hidden_dim": 256, "feedforward": 512},
        },
    },
    reported=(
        *(
            score
            for backbone, *values in (
                ("ResNet-101, 448", 84.9, 79.3, 81.5),
                ("ResNet-101, 576", 86.5, 81.0, 82.8),
                ("TResNet-L from ImageNet-1k, 448", 87.3, 81.6, 83.1),
                ("TResNet-L from ImageNet-22k, 448", 89.2, 83.8, 84.9),
                ("Swin-L from ImageNet-22k, 384", 90.5, 85.4, 86.4),
                ("CvT-w24 from ImageNet-22k, 384", 91.3, 85.9, 86.8),
            )
            for score in Reported.table(
                "metric value",
                *zip(("mAP", "CF1", "OF1"), values, strict=True),
                dataset="coco",
                source=TABLE,
                status="verified",
                note=f"{backbone}, COCO 2014 with images without labels",
            )
        ),
        *Reported.table(
            "dataset value source note",
            ("nuswide", 65.0, "comparison table of CPSD (IJCAI 2022)", "ResNet-101, 448"),
            ("voc2007", 97.3, "wizwand.com", "backbone and size are not stated there"),
            metric="mAP",
            status="secondary",
        ),
    ),
    deviations=(
        "The position code is computed for each map's own size; the authors' files hold that of "
        "one size.",
        "What does not depend on the image is computed once for all images: the same function.",
        "The authors' loss is a sum over images and labels, divided by both and times 1000; here "
        "it is the mean, which under AdamW trains alike.",
        "The batch size is our choice; the authors' peak learning rate does not depend on it.",
        "The strength of RandAugment is the default of this project's.",
        "The authors' list of augmentations has a cutout too, which their published command turns "
        "into nothing.",
        "The authors stop after eight epochs without a better test score; here the moving average "
        "of the last epoch counts.",
    ),
    released=RELEASED,
)
