"""ADD-GCN: a graph whose edges are predicted from each image.

Jin Ye, Junjun He, Xiaojiang Peng, Wenhao Wu, Yu Qiao, "Attention-Driven Dynamic Graph
Convolutional Network for Multi-Label Image Recognition", ECCV 2020, arXiv 2012.02994.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import (
    FeatureSpec,
    HeadOutput,
    LabelContext,
    Recipe,
    Released,
    Reported,
)
from mlbench_plugins.layers.classifiers import ElementwiseClassifier
from mlbench_plugins.layers.numerics import without_autocast
from mlbench_plugins.layers.options import check_range
from mlbench_plugins.layers.pretrained import renamed, sequential_resnet
from mlbench_plugins.layers.training_protocols import BEST_EPOCH, NO_SNAPPING, multi_scale

SLOPE = 0.2


class ADDGCN(nn.Module):
    """Class scores attend to the map; a static and a dynamic graph relate the label vectors.

    The static graph (C^2 weights), each image's dynamic graph (C^2 numbers, several times over in
    training) and three products of C^2 x width multiply-accumulates per image grow with the square
    of the labels. No tensor holds C^2 x width numbers.

    Args:
        spec: levels of the backbone; the last, of D channels, is used.
        labels: only their number C is used: both graphs are learned.
        width: channels of the label vectors K.
    """

    def __init__(self, spec: FeatureSpec, labels: LabelContext, *, width: int = 1024) -> None:
        super().__init__()
        channels, count = spec[-1].channels, len(labels)
        check_range("add_gcn", "[1, inf)", width=width)
        self.scores = nn.Linear(channels, count, bias=False)
        self.transform = nn.Linear(channels, width)
        self.static_adjacency = nn.Linear(count, count, bias=False)
        self.static_weight = nn.Linear(width, width)
        self.context = nn.Linear(width, width)
        self.context_norm = SingleImageBatchNorm(width)
        self.dynamic_adjacency = nn.Linear(2 * width, count)
        self.dynamic_weight = nn.Linear(width, width)
        self.classifier = ElementwiseClassifier(count, width)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]: the mean of both scores."""
        pooled_BC, graph_BC = self.both_scores(features)
        return HeadOutput((pooled_BC + graph_BC) / 2)

    def both_scores(self, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Scores of the map alone and of the graph, s_m and s_r in the paper: [B, C] each."""
        x_BND = features[-1].flatten(2).transpose(1, 2)
        scores_BNC = self.scores(x_BND)
        # The semantic attention module: a sum over positions, not a mean.
        v_BCK = scores_BNC.sigmoid().transpose(1, 2) @ self.transform(x_BND)
        related_BCK = v_BCK + self._static(v_BCK)
        edges_BCC = self._edges(related_BCK)
        # Sums over thousands of labels, and what is computed from them, exceed float16's range.
        precision = self.dynamic_weight.weight.dtype
        with without_autocast(v_BCK.device.type):
            received_BCK = edges_BCC.to(precision) @ related_BCK.to(precision)
            update_BCK = self.dynamic_weight(functional.leaky_relu(received_BCK, SLOPE))
            z_BCK = v_BCK + functional.leaky_relu(update_BCK, SLOPE)
            return scores_BNC.amax(dim=1), self.classifier(z_BCK)

    def _static(self, v_BCK: Tensor) -> Tensor:
        """Messages along a learned graph that all images share."""
        mixed_BKC = functional.leaky_relu(self.static_adjacency(v_BCK.transpose(1, 2)), SLOPE)
        return functional.leaky_relu(self.static_weight(mixed_BKC.transpose(1, 2)), SLOPE)

    def _edges(self, v_BCK: Tensor) -> Tensor:
        """The graph that the image's label vectors and their mean predict; receivers in rows."""
        context_BK = self.context_norm(self.context(v_BCK.mean(dim=1)))
        context_BK = functional.leaky_relu(context_BK, SLOPE)
        # The layer on [context; node], without a copy of the context for each node.
        context_weight_CK, node_weight_CK = self.dynamic_adjacency.weight.chunk(2, dim=1)
        shared_BC = functional.linear(context_BK, context_weight_CK, self.dynamic_adjacency.bias)
        return (functional.linear(v_BCK, node_weight_CK) + shared_BC[:, None]).sigmoid()


class SingleImageBatchNorm(nn.BatchNorm1d):
    """Batch norm of vectors [B, D] that normalises a batch of one by the running statistics.

    A single value has no variance, so torch refuses such a batch in training. From two images on,
    the statistics of the batch are used and tracked as usual.
    """

    synchronizable = True

    def forward(self, x_BD: Tensor) -> Tensor:
        """The normalised vectors."""
        if self.training and len(x_BD) == 1:
            return functional.batch_norm(
                x_BD, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x_BD)


AUTHORS = {
    "fc": "scores",
    "conv_transform": "transform",
    "gcn.static_adj.0": "static_adjacency",
    "gcn.static_weight.0": "static_weight",
    "gcn.conv_global": "context",
    "gcn.bn_global": "context_norm",
    "gcn.conv_create_co_mat": "dynamic_adjacency",
    "gcn.dynamic_weight": "dynamic_weight",
    "last_linear": "classifier",
}
"""Names of layers in the authors' checkpoints -> names here."""


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of an authors' state dict under the names used here.

    Their convolutions of one position become matrices. ``mask_mat``, the identity that picks each
    label's own score, has no counterpart.
    """
    return {
        key: value.flatten(1) if value.ndim > 2 else value
        for key, value in renamed(state, AUTHORS).items()
    }


README = "README of the authors' code, commit b7653fe"
Q2L = "comparison table of Query2Label (arXiv 2107.10834)"

RELEASED = Released(
    title="ADD-GCN (code commit b7653fe)",
    marks=(r"^features\.0\.", r"^gcn\.static_adj\."),
    trunk=sequential_resnet("features."),
    head=from_authors,
    options=lambda state: {"width": len(state["conv_transform.bias"])},
    unused=(r"^mask_mat$",),
    label_axes={
        "scores.weight": (0,),
        "static_adjacency.weight": (0, 1),
        "dynamic_adjacency.weight": (0,),
        "dynamic_adjacency.bias": (0,),
        "classifier.weight": (0,),
        "classifier.bias": (0,),
    },
    order={"coco": "alphabetical", "voc2007": "alphabetical"},
    outputs={
        "sm": lambda p: p.head.both_scores(p.features)[0],
        "sr": lambda p: p.head.both_scores(p.features)[1],
    },
)

RECIPE = Recipe(
    title="Attention-Driven Dynamic Graph Convolutional Network for Multi-Label Image Recognition",
    bibtex="""@inproceedings{ye2020addgcn,
  title     = {Attention-Driven Dynamic Graph Convolutional Network for Multi-Label Image
               Recognition},
  author    = {Ye, Jin and He, Junjun and Peng, Xiaojiang and Wu, Wenhao and Qiao, Yu},
  booktitle = {ECCV},
  year      = {2020}
}""",
    summary="Class activation maps pool one vector a label; a learned graph, and a second one that "
    "each image's own vectors predict, relate them; scores of maps and graph are averaged.",
    settings=multi_scale(
        "add_gcn", 0.05, (30, 40), resize=512, epochs=50, batch_size=16, grad_clip=10.0
    ),
    dataset_options={"voc2007": {"difficult_train": "positive"}},
    tuned={"probe": {"optimizer": {"lr": 3e-3}, "head_options": {"width": 256}}},
    reported=Reported.table(
        "dataset metric value source status note",
        ("coco", "mAP", 84.2, README, "verified", "ResNet-101, 448, COCO 2014"),
        ("coco", "mAP", 85.2, README, "verified", "trained at 448, tested at 576"),
        ("coco", "CF1", 80.1, Q2L, "secondary", "ResNet-101, tested at 576, COCO 2014"),
        ("coco", "OF1", 82.0, Q2L, "secondary", "ResNet-101, tested at 576, COCO 2014"),
        ("voc2007", "mAP", 96.0, "abstract of the paper", "verified", "ResNet-101"),
    ),
    deviations=(
        NO_SNAPPING,
        BEST_EPOCH,
        "In training, the batch norm of a batch of one image takes its running statistics; the "
        "authors' code fails there.",
        "The convolution on the mean vector beside each label's vector is computed once for the "
        "mean: the same function.",
        "Their scores at 576 pixels come from models trained at 448; here the model is tested at "
        "the size that it was trained at.",
    ),
    released=(RELEASED,),
)
