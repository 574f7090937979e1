"""ML-GCN: a graph network over word vectors generates one classifier a label.

Zhao-Min Chen, Xiu-Shen Wei, Peng Wang, Yanwen Guo, "Multi-Label Image Recognition with Graph
Convolutional Networks", CVPR 2019, arXiv 1904.03582.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import (
    Angles,
    FeatureSpec,
    HeadOutput,
    LabelContext,
    Recipe,
    Released,
    Reported,
)
from mlbench_plugins.layers.classifiers import cosines, is_cosine, logits_of_cosines
from mlbench_plugins.layers.constant import ConstantInEvaluation
from mlbench_plugins.layers.graph_layers import GraphConvolution
from mlbench_plugins.layers.label_graph import (
    conditional_probability,
    label_graph,
    reweighted_graph,
    symmetrically_normalised,
)
from mlbench_plugins.layers.options import check_range
from mlbench_plugins.layers.pretrained import renamed, sequential_resnet
from mlbench_plugins.layers.training_protocols import (
    BEST_EPOCH,
    ML_GCN_BIBTEX,
    NO_SNAPPING,
    multi_scale,
)


class MLGCN(nn.Module):
    """Pool the deepest map by its maximum; classify by weights that the label graph generates.

    The classifiers depend on no image: they cost C^2 (width + D) + C width (E + D)
    multiply-accumulates per batch in training, and nothing in evaluation.

    Args:
        spec: levels of the backbone; the last, of D channels, is used.
        labels: word vectors [C, E], and counts that give the graph.
        threshold: least P(j | i) that links two labels, in (0, 1].
        p: total weight of a label's neighbours, relative to its own weight of 1; 0.25 is the
            paper's p = 0.2.
        graph: graph of the convolutions, a name of ``layers.label_graph``.
        counts: the denominator of P(j | i), ``images`` or ``objects`` (``layers.label_graph``).
        width: channels between the two graph convolutions.
        classifier: ``linear``, or ``cosine`` between the pooled map and the generated weights, for
            losses that work on angles.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        threshold: float = 0.4,
        p: float = 0.25,
        graph: str = "reweighted",
        counts: str = "images",
        width: int = 1024,
        classifier: str = "linear",
    ) -> None:
        super().__init__()
        check_range("ml_gcn", "(0, 1]", threshold=threshold)
        check_range("ml_gcn", "[0, inf)", p=p)
        check_range("ml_gcn", "[1, inf)", width=width)
        words_CE = torch.tensor(labels.embeddings)
        probability_CC = conditional_probability(labels, counts).to(words_CE.dtype)
        graph_CC = label_graph(graph, probability_CC, threshold, p)
        self.class_weights = ClassWeights(words_CE, graph_CC, width, spec[-1].channels)
        self.classifier = _Cosine() if is_cosine(classifier) else _Linear()

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        x_BD = features[-1].amax(dim=(2, 3))  # eq. 3
        return HeadOutput(self.classifier(x_BD, self.class_weights()))  # eq. 4


class ClassWeights(ConstantInEvaluation):
    """A function of the labels alone: the generated classifiers [C, D].

    Args:
        words_CE, graph_CC: the nodes, and how they are linked.
        width: channels between the two graph convolutions.
        channels: D.
    """

    adjacency: Tensor
    words: Tensor

    def __init__(self, words_CE: Tensor, graph_CC: Tensor, width: int, channels: int) -> None:
        super().__init__(len(words_CE), channels)
        self.register_buffer("words", words_CE)
        self.register_buffer("adjacency", graph_CC)
        self.gc1 = GraphConvolution(words_CE.shape[1], width)
        self.gc2 = GraphConvolution(width, channels)

    def compute(self) -> Tensor:
        """Eq. 2 twice, the last without activation."""
        hidden_CK = functional.leaky_relu(self.gc1(self.words, self.adjacency), 0.2)
        weights_CD: Tensor = self.gc2(hidden_CK, self.adjacency)
        return weights_CD


class _Linear(nn.Module):
    """Vectors [B, D] times given class weights [C, D], without bias: [B, C]."""

    def forward(self, x_BD: Tensor, weight_CD: Tensor) -> Tensor:
        return functional.linear(x_BD, weight_CD)


class _Cosine(nn.Module):
    """Logits from the cosines of vectors [B, D] and given class weights [C, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.angles = Angles()

    def forward(self, x_BD: Tensor, weight_CD: Tensor) -> Tensor:
        return logits_of_cosines(cosines(functional.linear, x_BD, weight_CD), self.angles)


ADJACENCY, WORDS = "class_weights.adjacency", "class_weights.words"
AUTHORS = {"gc1": "class_weights.gc1", "gc2": "class_weights.gc2", "A": ADJACENCY}
"""Names in the authors' checkpoints -> names here."""


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of an authors' state dict under the names used here.

    Their ``A`` is the graph of eq. 8 before its normalisation. The checkpoints hold no word
    vectors: those come from the label context.
    """
    found = renamed(state, AUTHORS)
    if ADJACENCY in found:
        found[ADJACENCY] = symmetrically_normalised(found[ADJACENCY])
    return found


README = "README of the authors' code, commit 5517d6f"
ADDGCN = "README of the code of ADD-GCN (ECCV 2020), commit b7653fe"
SADCL = "comparison table of SADCL (arXiv 2307.09715)"

RELEASED = Released(
    title="ML-GCN (code commit 5517d6f)",
    marks=(r"^features\.0\.", r"^gc1\.weight$", r"^gc2\.weight$"),
    trunk=sequential_resnet("features."),
    head=from_authors,
    options=lambda state: {"width": state["gc1.weight"].shape[1]},
    label_axes={ADJACENCY: (0, 1), WORDS: (0,)},
    order={"coco": "alphabetical", "voc2007": "alphabetical"},
    needs={"graph": (ADJACENCY,), "words": (WORDS,)},
    graph=lambda probability_CC, options: {
        ADJACENCY: label_graph(options["graph"], probability_CC, options["threshold"], options["p"])
    },
    outputs={
        "A": lambda p: reweighted_graph(p.graph, p.fixture["threshold"], p.fixture["p"]),
        "adjacency": lambda p: p.head.class_weights.adjacency,
    },
)

RECIPE = Recipe(
    title="Multi-Label Image Recognition with Graph Convolutional Networks",
    bibtex=ML_GCN_BIBTEX,
    summary="Two graph convolutions over the labels' word vectors, on a re-weighted binary graph "
    "of co-occurrence, generate the classifiers of a maximum-pooled feature vector.",
    settings=multi_scale("ml_gcn", 0.1, (40, 80), epochs=100, batch_size=32, grad_clip=10.0),
    dataset_options={"voc2007": {"difficult_train": "positive"}},
    tuned={"probe": {"optimizer": {"lr": 1e-3}}},
    reported=Reported.table(
        "dataset metric value source status note",
        ("coco", "mAP", 83.0, README, "verified", "ResNet-101, 448, COCO 2014"),
        ("coco", "CF1", 78.0, SADCL, "secondary", "ResNet-101, 448, COCO 2014"),
        ("coco", "OF1", 80.3, SADCL, "secondary", "ResNet-101, 448, COCO 2014"),
        ("voc2007", "mAP", 94.0, README, "verified", "ResNet-101, 448"),
        ("coco", "mAP", 84.3, ADDGCN, "verified", "ADD-GCN's rerun: ResNet-101, 576"),
    ),
    deviations=(
        "The authors give no training command. The learning rate 0.1 (0.01 for the backbone) is "
        "their code's default; a rate ten times lower may be the paper's. Epochs, milestones and "
        "batch size are recalled from the paper and not verified. Users report that wrong rates "
        "end near 9 mAP and that gradient clipping matters.",
        "The maximum is taken over a map of any size; the authors' pooling of 14 x 14 needs images "
        "of 448 pixels.",
        "The graph comes from the training split, and the word vectors from --words or the "
        "training split; the authors ship GloVe vectors beside their code.",
        NO_SNAPPING,
        BEST_EPOCH,
    ),
    released=(RELEASED,),
)
