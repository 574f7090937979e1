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
    Augmentation,
    FeatureSpec,
    HeadOutput,
    LabelContext,
    Optimizer,
    PluginError,
    Recipe,
    Released,
    Reported,
    Schedule,
    Settings,
)
from mlbench_plugins.layers.autocast import without_autocast
from mlbench_plugins.layers.classifiers import logits_of_cosines
from mlbench_plugins.layers.graph_convolution import GraphConvolution
from mlbench_plugins.layers.label_graph import (
    conditional_probability,
    label_graph,
    reweighted_graph,
    symmetrically_normalised,
)
from mlbench_plugins.layers.trunks import sequential_resnet


class MLGCN(nn.Module):
    """Pool the deepest map by its maximum; classify by weights that the label graph generates.

    The classifiers do not depend on the image: their cost, C^2 (width + D) + C width (E + D)
    multiply-accumulates, is one of a batch.

    Args:
        spec: levels of the backbone; the last, of D channels, is used.
        labels: word vectors [C, E], and counts that give the graph.
        threshold: P(j | i) from which on two labels are linked, in (0, 1].
        p: what the neighbours of a label weigh together beside its own weight of 1; 0.25 is the
            paper's p = 0.2.
        graph: what the convolutions run along, a name of ``layers.label_graph``.
        width: channels between the two graph convolutions.
        classifier: ``linear``, or ``cosine`` between the pooled map and the generated weights, for
            losses that work on angles.
    """

    adjacency: Tensor
    words: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        threshold: float = 0.4,
        p: float = 0.25,
        graph: str = "reweighted",
        width: int = 1024,
        classifier: str = "linear",
    ) -> None:
        super().__init__()
        if not 0 < threshold <= 1 or p < 0 or width < 1:
            raise PluginError(
                f"ml_gcn: threshold={threshold} must lie in (0, 1], p={p} must not be negative "
                f"and width={width} must be at least 1"
            )
        if classifier not in CLASSIFIERS:
            raise PluginError(
                f"ml_gcn: there is no classifier {classifier!r}; known: {', '.join(CLASSIFIERS)}"
            )
        words_CE = torch.tensor(labels.embeddings)
        probability_CC = conditional_probability(labels).to(words_CE.dtype)
        self.register_buffer("words", words_CE)
        self.register_buffer("adjacency", label_graph(graph, probability_CC, threshold, p))
        self.gc1 = GraphConvolution(words_CE.shape[1], width)
        self.gc2 = GraphConvolution(width, spec[-1].channels)
        self.classifier = CLASSIFIERS[classifier]()

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        x_BD = features[-1].amax(dim=(2, 3))  # eq. 3
        return HeadOutput(self.classifier(x_BD, self.class_weights()))  # eq. 4

    def class_weights(self) -> Tensor:
        """The generated classifiers [C, D]: eq. 2 twice, the last without activation."""
        hidden_CK = functional.leaky_relu(self.gc1(self.words, self.adjacency), 0.2)
        weights_CD: Tensor = self.gc2(hidden_CK, self.adjacency)
        return weights_CD


class _Linear(nn.Module):
    """Vectors [B, D] times given class weights [C, D], without bias: [B, C]."""

    def forward(self, x_BD: Tensor, weight_CD: Tensor) -> Tensor:
        return functional.linear(x_BD, weight_CD)


class _Cosine(nn.Module):
    """Logits from the cosines of vectors [B, D] and given class weights [C, D], in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.angles = Angles()

    def forward(self, x_BD: Tensor, weight_CD: Tensor) -> Tensor:
        precision = torch.promote_types(x_BD.dtype, torch.float32)
        with without_autocast(x_BD.device.type):
            x_BD = functional.normalize(x_BD.to(precision), dim=-1)
            weight_CD = functional.normalize(weight_CD.to(precision), dim=-1)
            return logits_of_cosines(functional.linear(x_BD, weight_CD), self.angles)


CLASSIFIERS = {"linear": _Linear, "cosine": _Cosine}


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of an authors' state dict under the names used here.

    Their ``A``, the graph of eq. 8 before its normalisation, becomes ``adjacency``. The checkpoints
    hold no word vectors: those come from the label context.
    """
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    found = {key: value for key, value in bare.items() if key in ("gc1.weight", "gc2.weight")}
    if "A" in bare:
        found["adjacency"] = symmetrically_normalised(bare["A"])
    return found


README = "README of the authors' code, commit 5517d6f"
SADCL = "comparison table of SADCL (arXiv 2307.09715)"

RELEASED = Released(
    title="ML-GCN (code commit 5517d6f)",
    marks=(r"^features\.0\.", r"^gc1\.weight$", r"^gc2\.weight$"),
    trunk=sequential_resnet("features."),
    head=from_authors,
    options=lambda state: {"width": state["gc1.weight"].shape[1]},
    label_axes={"adjacency": (0, 1), "words": (0,)},
    order="alphabetical",
    needs={"graph": ("adjacency",), "words": ("words",)},
    graph=lambda probability_CC, options: {
        "adjacency": label_graph(
            options["graph"], probability_CC, options["threshold"], options["p"]
        )
    },
    outputs={
        "A": lambda p: reweighted_graph(p.graph, p.fixture["threshold"], p.fixture["p"]),
        "adjacency": lambda p: p.head.adjacency,
    },
)

RECIPE = Recipe(
    title="Multi-Label Image Recognition with Graph Convolutional Networks",
    bibtex="""@inproceedings{chen2019mlgcn,
  title     = {Multi-Label Image Recognition with Graph Convolutional Networks},
  author    = {Chen, Zhao-Min and Wei, Xiu-Shen and Wang, Peng and Guo, Yanwen},
  booktitle = {CVPR},
  year      = {2019}
}""",
    summary="Two graph convolutions over the labels' word vectors, on a re-weighted binary graph "
    "of co-occurrence, generate the classifiers of a maximum-pooled feature vector.",
    settings=Settings(
        backbone="resnet101",
        head="ml_gcn",
        loss="bce",
        image_size=448,
        augmentation=(
            Augmentation(
                name="multi_scale_crop",
                options={"scales": [1.0, 0.875, 0.75, 0.66, 0.5], "max_distort": 2},
            ),
            Augmentation(name="flip"),
        ),
        epochs=100,
        batch_size=32,
        optimizer=Optimizer(name="sgd", lr=0.1, weight_decay=1e-4, momentum=0.9),
        schedule=Schedule(name="step", milestones=(40, 80), gamma=0.1),
        backbone_lr_scale=0.1,
        grad_clip=10.0,
    ),
    dataset_options={"voc2007": {"difficult_train": "positive"}},
    tuned={"probe": {"optimizer": {"lr": 1e-3}}},
    reported=tuple(
        Reported(
            dataset=dataset, metric=metric, value=value, source=source, status=status, note=note
        )
        for dataset, metric, value, source, status, note in (
            ("coco", "mAP", 83.0, README, "verified", "ResNet-101, 448, COCO 2014"),
            ("coco", "CF1", 78.0, SADCL, "secondary", "ResNet-101, 448, COCO 2014"),
            ("coco", "OF1", 80.3, SADCL, "secondary", "ResNet-101, 448, COCO 2014"),
            ("voc2007", "mAP", 94.0, README, "verified", "ResNet-101, 448"),
            (
                "coco",
                "mAP",
                84.3,
                "README of the code of ADD-GCN (ECCV 2020), commit b7653fe",
                "verified",
                "ADD-GCN's rerun: ResNet-101, 576",
            ),
        )
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
        "A size of a crop that is close to the image size is not snapped to it.",
    ),
    released=(RELEASED,),
)
