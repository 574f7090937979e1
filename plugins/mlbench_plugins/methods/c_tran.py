"""C-Tran: a transformer encoder over an image's pixels and its labels, some of which may be known.

Jack Lanchantin, Tianlu Wang, Vicente Ordonez, Yanjun Qi, "General Multi-label Image Classification
with Transformers", CVPR 2021, arXiv 2011.14027.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mlbench.types import (
    Augmentation,
    FeatureSpec,
    HeadOutput,
    LabelContext,
    Proof,
    Recipe,
    Released,
    Reported,
    Settings,
)
from mlbench_plugins.layers.classifiers import make_elementwise, start_at_prior
from mlbench_plugins.layers.options import check_range
from mlbench_plugins.layers.pretrained import renamed_by, resnet
from mlbench_plugins.layers.training_protocols import SEMANTIC_GRAPHS
from mlbench_plugins.layers.transformer import EncoderLayer, projection


class CTran(nn.Module):
    """Pixels and label vectors attend to each other; each label's vector has its own classifier.

    A label's vector is its embedding plus that of its state: unknown, absent or present. In
    training the core reveals some labels of each image to the head, and the loss sees the others.

    Args:
        spec: levels of the backbone; the last is used.
        labels: only their number is used.
        hidden_dim: width after a 1 x 1 convolution; None takes the map as it is, as the paper does.
            A multiple of ``heads``.
        layers: number of encoder layers.
        heads: number of attention heads.
        feedforward: width of its hidden layers; None takes the width of the encoder.
        dropout: everywhere in the encoder.
        most_known: largest share of the labels that training reveals; 0 reveals none.
        classifier: ``linear``, or ``cosine`` for losses that work on angles.
        prior_bias: start each bias at its label's log-odds.
    """

    needs: ClassVar = frozenset({"known"})
    unknown: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        hidden_dim: int | None = None,
        layers: int = 3,
        heads: int = 4,
        feedforward: int | None = None,
        dropout: float = 0.1,
        most_known: float = 0.75,
        classifier: str = "linear",
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        channels, count = spec[-1].channels, len(labels)
        width, self.project = projection("c_tran", channels, hidden_dim, heads)
        check_range("c_tran", "[1, inf)", layers=layers, feedforward=feedforward)
        check_range("c_tran", "[0, 1)", dropout=dropout, most_known=most_known)
        self.most_known = most_known
        bound = width**-0.5
        self.labels = nn.Parameter(torch.empty(count, width).uniform_(-bound, bound))
        # The authors' table of states has a row that is random and never trained.
        self.register_buffer("unknown", torch.empty(1, width).uniform_(-bound, bound))
        self.states = nn.Parameter(torch.empty(2, width).uniform_(-bound, bound))
        self.norm = nn.LayerNorm(width)
        sizes = (width, heads, feedforward or width, dropout)
        self.layers = nn.ModuleList(EncoderLayer(*sizes) for _ in range(layers))
        self.classifier = make_elementwise(classifier, count, width)
        if prior_bias:
            start_at_prior(self.classifier, labels)

    def forward(self, features: tuple[Tensor, ...], known_BC: Tensor | None = None) -> HeadOutput:
        """The deepest map [B, D, H, W], and labels in {1, 0, -1 unknown}, to logits [B, C]."""
        x_BND = self.project(features[-1]).flatten(2).transpose(1, 2)
        states_3D = torch.cat((self.unknown, self.states))
        # Figure 3: the embedding of each label plus that of its state.
        state = states_3D[0] if known_BC is None else states_3D[known_BC.long() + 1]
        labels_BCD = (self.labels + state).expand(x_BND.shape[0], -1, -1)
        z_BMD = self.norm(torch.cat((x_BND, labels_BCD), dim=1))
        for layer in self.layers[:-1]:
            z_BMD = layer(z_BMD)
        # The last layer's outputs for pixels are not used.
        last: Any = self.layers[-1]
        t_BCD = z_BMD[:, x_BND.shape[1] :]
        t_BCD = last.feedforward(last.self_attention(t_BCD, t_BCD, z_BMD, z_BMD))
        return HeadOutput(self.classifier(t_BCD))


LAYER = r"self_attn_layers\.(\d+)\.transformer_layer\."
AUTHORS = {
    LAYER + r"self_attn\.": r"layers.\1.self_attention.attention.",
    LAYER + r"norm1\.": r"layers.\1.self_attention.norm.",
    LAYER + r"(linear[12])\.": r"layers.\1.feedforward.\2.",
    LAYER + r"norm2\.": r"layers.\1.feedforward.norm.",
    r"label_lt\.weight": "labels",
    r"known_label_lt\.weight": "states",
    r"output_linear\.": "classifier.",
    r"LayerNorm\.": "norm.",
}
"""Beginnings of keys in the authors' checkpoints -> beginnings here."""


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of an authors' state dict under the names used here."""
    found = renamed_by(AUTHORS, state)
    if "states" in found:
        found["unknown"], found["states"] = found["states"].split([1, 2])
    return found


def _options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the options, except the number of heads, from the shapes of the authors' tensors."""
    return {
        "layers": len({match[1] for key in state if (match := re.match(LAYER, key))}),
        "feedforward": len(state["self_attn_layers.0.transformer_layer.linear1.bias"]),
    }


def _told(proof: Proof) -> Tensor:
    """The head's logits, given the known labels."""
    logits_BC: Tensor = proof.head(proof.features, proof.known).logits
    return logits_BC


RELEASED = Released(
    title="C-Tran (code commit 560cf6f)",
    marks=(r"^known_label_lt\.weight$",),
    trunk=resnet("backbone.base_network."),
    head=from_authors,
    options=_options,
    unused=(r"^backbone\.base_network\.fc\.",),
    label_axes={"labels": (0,), "classifier.weight": (0,), "classifier.bias": (0,)},
    outputs={"logits_known": _told},
)

RECIPE = Recipe(
    title="General Multi-label Image Classification with Transformers",
    bibtex="""@inproceedings{lanchantin2021ctran,
  title     = {General Multi-label Image Classification with Transformers},
  author    = {Lanchantin, Jack and Wang, Tianlu and Ordonez, Vicente and Qi, Yanjun},
  booktitle = {CVPR},
  year      = {2021}
}""",
    summary="Pixels and labels are tokens of one transformer encoder. Training tells it the state "
    "of 0 to 75 % of each image's labels, and the others are learned, so that labels that are "
    "known at test time help to find the rest (editions known-25, known-50, known-75: "
    "--set known_labels=0.25).",
    settings=Settings(
        **SEMANTIC_GRAPHS
        | {
            "head": "c_tran",
            "loss_options": {"reduction": "sum"},
            "augmentation": (*SEMANTIC_GRAPHS["augmentation"], Augmentation(name="flip")),
            "epochs": 100,
            "batch_size": 16,
            "frozen_stages": 0,
        }
    ),
    per_dataset={"voc2007": {"batch_size": 32}},
    dataset_options={"voc2007": {"difficult_train": "negative"}},
    # At full width the head has 30 to 100 million weights, too many for frozen maps.
    tuned={
        "probe": {
            "optimizer": {"lr": 1e-3},
            "head_options": {"hidden_dim": 256, "feedforward": 512},
        },
    },
    reported=Reported.table(
        "metric value",
        ("mAP", 85.1),
        ("CF1", 79.9),
        ("OF1", 81.7),
        dataset="coco",
        source="Table 1 of Query2Label (arXiv 2107.10834)",
        status="secondary",
        note="ResNet-101, 576, no label known",
    ),
    deviations=(
        "Protocol known-K: of each test image every label is told with probability K %, by a hash "
        "of a seed, the image's key and the label's name, and the mAP is over the labels that are "
        "not told. The authors choose exactly K % by a hash of the pixels. Such runs have boards "
        "of their own; without known labels the head is scored as any other.",
        "What the last layer makes of pixels is not computed, as nothing reads it.",
        "The authors lower the learning rate when the loss stagnates and keep the best epoch; here "
        "the rate is constant and the last epoch counts. The number of epochs is our choice.",
        "On VOC the authors add up two batches of 16 a step; here a batch has 32 images.",
        "On VOC the authors count difficult objects as negatives in the test split too; here they "
        "are unknown there, as in the official evaluation.",
    ),
    released=(RELEASED,),
)
