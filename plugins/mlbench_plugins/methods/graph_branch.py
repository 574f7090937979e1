"""A graph branch over the labels that weighs the channels of the feature map.

Kirill Prokofiev, Vladislav Sovrasov, "Combining Metric Learning and Attention Heads For Accurate
and Efficient Multilabel Image Classification", VISAPP 2023, arXiv 2209.06585.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import FeatureSpec, HeadOutput, LabelContext, Recipe, Released
from mlbench_plugins.layers.classifiers import make_classifier, start_at_prior
from mlbench_plugins.layers.constant import ConstantInEvaluation
from mlbench_plugins.layers.graph_layers import GraphAttention, GraphConvolution
from mlbench_plugins.layers.label_graph import (
    conditional_probability,
    label_graph,
    symmetrically_normalised,
)
from mlbench_plugins.layers.metric_learning import DEVIATIONS, shared_fields, unscaled
from mlbench_plugins.layers.options import check_choice, check_range
from mlbench_plugins.layers.pretrained import renamed, timm_names


class GraphBranch(nn.Module):
    """Graph layers turn the word vectors into one weight a channel; pool, weigh, classify.

    The weights depend on no image: in evaluation they are a constant and cost nothing.

    Args:
        spec: levels of the backbone; the last, of D channels, is used.
        labels: word vectors, and counts that give the graph.
        classifier: ``linear``, or ``cosine`` for losses that work on angles.
        layer_type: ``graph convolution`` or ``graph attention``.
        layers: graph layers, 1 to 3.
        hidden_dim: width between the layers; None takes D.
        label_pooling: pooling over the labels: ``max``, ``avg``, or ``sum`` (the sum of the two).
        last_sigmoid: squash the weights to (0, 1).
        graph: the layers' graph, a name of ``layers.label_graph``; graph attention sees only
            where it has links.
        counts: the denominator of P(j | i), ``images`` or ``objects`` (``layers.label_graph``); the
            authors' code counts objects.
        threshold: least P(j | i) that links two labels.
        rho: total weight of a label's neighbours, relative to its own 1; at 0 the links are left
            as they are, and no label is linked to itself.
        dropout: rate on the weights of graph attention.
        prior_bias: start each bias at its label's log-odds.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        classifier: str = "linear",
        layer_type: str = "graph convolution",
        layers: int = 2,
        hidden_dim: int | None = None,
        label_pooling: str = "max",
        last_sigmoid: bool = True,
        graph: str = "reweighted",
        counts: str = "images",
        threshold: float = 0.4,
        rho: float = 0.25,
        dropout: float = 0.1,
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        check_choice("layer_type", layer_type, ("graph convolution", "graph attention"))
        check_choice("layers", layers, (1, 2, 3))
        check_choice("label_pooling", label_pooling, ("max", "avg", "sum"))
        check_range("graph_branch", "[1, inf)", hidden_dim=hidden_dim)
        check_range("graph_branch", "(0, 1]", threshold=threshold)
        check_range("graph_branch", "[0, inf)", rho=rho)
        check_range("graph_branch", "[0, 1)", dropout=dropout)
        channels = spec[-1].channels
        words_CE = torch.tensor(labels.embeddings)
        probability_CC = conditional_probability(labels, counts).to(words_CE.dtype)
        graph_CC = _graph(graph, probability_CC, threshold, rho)
        inner = [hidden_dim or channels] * (layers - 1)
        stack = [
            GraphConvolution(*widths)
            if layer_type == "graph convolution"
            else GraphAttention(*widths, residual=False, dropout=dropout)
            for widths in pairwise((words_CE.shape[1], *inner, channels))
        ]
        self.gate = ChannelGate(
            words_CE, graph_CC, stack, channels, pooling=label_pooling, last_sigmoid=last_sigmoid
        )
        self.classifier = make_classifier(classifier, len(labels), channels)
        if prior_bias:
            start_at_prior(self.classifier, labels)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        # Weighting the mean equals weighting the map, and is H x W times cheaper.
        return HeadOutput(self.classifier(features[-1].mean(dim=(2, 3)) * self.gate()))


class ChannelGate(ConstantInEvaluation):
    """A function of the labels alone: one weight a channel, [D].

    Args:
        words_CE, graph_CC: the nodes, and how they are linked.
        layers: graph convolutions, or graph attention, which sees only where links are.
        channels: D.
        pooling: pooling over the labels.
        last_sigmoid: squash the weights to (0, 1).
    """

    adjacency: Tensor
    words: Tensor

    def __init__(
        self,
        words_CE: Tensor,
        graph_CC: Tensor,
        layers: Sequence[nn.Module],
        channels: int,
        *,
        pooling: str,
        last_sigmoid: bool,
    ) -> None:
        super().__init__(channels)
        self.pooling = pooling
        self.last_sigmoid = last_sigmoid
        self.register_buffer("words", words_CE)
        self.register_buffer("adjacency", graph_CC)
        self.layers = nn.ModuleList(layers)

    def compute(self) -> Tensor:
        """The weights from the parameters."""
        nodes_CD = self.words
        for layer in self.layers:
            attends = isinstance(layer, GraphAttention)
            graph_CC = self.adjacency > 0 if attends else self.adjacency
            nodes_CD = functional.leaky_relu(layer(nodes_CD, graph_CC), 0.2)
        pooled_D = _pool(nodes_CD, self.pooling)
        return pooled_D.sigmoid() if self.last_sigmoid else pooled_D


def _pool(nodes_CD: Tensor, how: str) -> Tensor:
    if how == "sum":
        return nodes_CD.amax(dim=0) + nodes_CD.mean(dim=0)
    return nodes_CD.amax(dim=0) if how == "max" else nodes_CD.mean(dim=0)


def _graph(graph: str, probability_CC: Tensor, threshold: float, rho: float) -> Tensor:
    """Make the layers' graph from P(j | i) [C, C]; ``reweighted`` with rho 0 has no loops."""
    unweighted = graph == "reweighted" and rho == 0
    return label_graph("binary" if unweighted else graph, probability_CC, threshold, rho)


AUTHORS = {
    "inp": "gate.words",
    "A": "gate.adjacency",
    "gc1": "gate.layers.0",
    "gc2": "gate.layers.1",
    "gc3": "gate.layers.2",
    "head": "classifier",
}
"""Names in the authors' checkpoints -> names here."""


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of an authors' state dict under the names used here.

    Their cosine output, the one without a bias, stores its weights as [D, C]. The graph ``A`` may
    be stored before or after its symmetric normalisation; ours is after.
    """
    found = renamed(state, AUTHORS)
    if "classifier.weight" in found and "classifier.bias" not in found:
        found["classifier.weight"] = found["classifier.weight"].T
    graph_CC = found.get("gate.adjacency")
    if graph_CC is not None and _is_plain(graph_CC):
        found["gate.adjacency"] = symmetrically_normalised(graph_CC)
    return found


def _is_plain(adjacency_CC: Tensor) -> bool:
    """True if not yet normalised: ones on the diagonal, or (at rho 0) only ones and zeros."""
    binary = bool(((adjacency_CC == 0) | (adjacency_CC == 1)).all())
    return binary or bool((adjacency_CC.diagonal() == 1).all())


def _options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the options from the shapes of the authors' tensors."""
    kind = "W" if "gc1.W" in state else "weight"
    widths = [state[key].shape[1] for i in (1, 2, 3) if (key := f"gc{i}.{kind}") in state]
    return {
        "layers": len(widths),
        "layer_type": "graph attention" if kind == "W" else "graph convolution",
        "hidden_dim": widths[0] if len(widths) > 1 else None,
        "classifier": "linear" if "head.bias" in state else "cosine",
    }


RELEASED = Released(
    title="deep-object-reid's graph branch (branch multilabel-paper, commit 469ec397)",
    marks=(r"^backbone\.model\.", r"^gc1\.", r"^head\.weight$"),
    trunk=timm_names("backbone.model."),
    head=from_authors,
    options=_options,
    unused=(r"^backbone\.model\.(classifier|head|fc)\.",),
    label_axes={
        "classifier.weight": (0,),
        "classifier.bias": (0,),
        "gate.adjacency": (0, 1),
        "gate.words": (0,),
    },
    averaged=True,
    order="alphabetical",
    needs={"graph": ("gate.adjacency",), "words": ("gate.words",)},
    graph=lambda probability_CC, options: {
        "gate.adjacency": _graph(
            options["graph"], probability_CC, options["threshold"], options["rho"]
        )
    },
    outputs={"adjacency": lambda p: p.head.gate.adjacency, "logits": unscaled},
)

RECIPE = Recipe(
    **shared_fields("graph_branch", classifier="cosine"),
    summary="A graph network over word vectors, pooled over the labels, weighs the channels of the "
    "feature map; it sees no image, so at inference it is a constant.",
    tuned={"probe": {"optimizer": {"lr": 3e-3}, "head_options": {"classifier": "linear"}}},
    deviations=(
        "The weights multiply the averaged map instead of the map: the same function.",
        "P(j | i) is a share of the images with label i, as in ML-GCN; the authors' code divides "
        "by the instances of i, which leaves fewer edges (on COCO 35 instead of 111). "
        "head_options: {counts: objects} does as they do.",
        "On graph attention the dropout is on the attention weights; there is none in evaluation.",
        "At rho 0 a label whose links all point to it keeps them; in the authors' formula it is "
        "divided by zero.",
        "The strength of RandAugment is the default of this project's.",
        "The authors start EfficientNetV2-S from OpenImages weights of their own; here it is "
        "timm's default weights.",
        *DEVIATIONS,
        "The paper's scores of this branch could not be read, so none are shown.",
    ),
    released=(RELEASED,),
)
