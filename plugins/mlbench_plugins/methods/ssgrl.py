"""SSGRL: semantic-specific features for each label, related by a graph of co-occurrence.

Tianshui Chen, Muxin Xu, Xiaolu Hui, Hefeng Wu, Liang Lin, "Learning Semantic-Specific Graph
Representation for Multi-Label Image Recognition", ICCV 2019, arXiv 1908.07325.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import (
    FeatureSpec,
    HeadOutput,
    LabelContext,
    Recipe,
    Released,
    Reported,
    Settings,
)
from mlbench_plugins.layers.classifiers import make_elementwise, start_at_prior
from mlbench_plugins.layers.constant import ConstantInEvaluation
from mlbench_plugins.layers.decoupling import SemanticDecoupling
from mlbench_plugins.layers.graph_layers import GGNN
from mlbench_plugins.layers.label_graph import conditional_probability, label_graph
from mlbench_plugins.layers.options import check_pooling, check_range
from mlbench_plugins.layers.pretrained import ORDER_BY_ID, renamed, resnet
from mlbench_plugins.layers.training_protocols import SEMANTIC_GRAPHS

NUMBERS = 2
"""Since 2 a CPU computes the tanh of eq. 1 as a sigmoid, which rounds differently."""


class SSGRL(nn.Module):
    """Decouple the deepest map into one vector a label, relate the vectors, classify each.

    Args:
        spec: levels of the backbone; the last, of D channels, is used.
        labels: word vectors, and counts that give the graph.
        hidden_dim: width of the graph network's state; a linear layer brings the label vectors to
            it. None takes the vectors as they are, D wide, as the paper does; a round costs
            9 C hidden_dim^2 multiply-accumulates.
        output_dim: width of the vector that a label's classifier sees.
        intermediary_dim: width of the joint space of words and pixels.
        time_steps: rounds of messages between labels.
        graph: graph of the messages, a name of ``layers.label_graph``; the paper's is P(j | i).
        counts: the denominator of P(j | i), ``images`` or ``objects`` (``layers.label_graph``).
        downsample: side of the average pooling on the map; 1 for none.
        ceil_mode: keep the last row and column of maps of odd size; the published code drops them.
        reset_uses_update_weights: True repeats a slip of the published code (eq. 6: the reset gate
            takes the update gate's recurrent weights), which its checkpoints were trained with.
        classifier: one a label; ``linear``, or ``cosine`` for losses that work on angles.
        prior_bias: start each bias at its label's log-odds.
    """

    adjacency: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        hidden_dim: int | None = None,
        output_dim: int = 2048,
        intermediary_dim: int = 1024,
        time_steps: int = 3,
        graph: str = "conditional",
        counts: str = "images",
        downsample: int = 2,
        ceil_mode: bool = True,
        reset_uses_update_weights: bool = False,
        classifier: str = "linear",
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        widths = {"output_dim": output_dim, "intermediary_dim": intermediary_dim}
        check_range("ssgrl", "[1, inf)", hidden_dim=hidden_dim, **widths)
        check_range("ssgrl", "[1, inf)", time_steps=time_steps, downsample=downsample)
        channels = spec[-1].channels
        hidden = hidden_dim or channels
        self.downsample, self.ceil_mode = downsample, ceil_mode
        probability_CC = conditional_probability(labels, counts)
        self.register_buffer("adjacency", label_graph(graph, probability_CC))
        self.project = nn.Linear(channels, hidden) if hidden_dim else nn.Identity()
        self.words = ProjectedWords(torch.tensor(labels.embeddings), intermediary_dim)
        self.decoupling = SemanticDecoupling(channels, intermediary_dim)
        self.ggnn = GGNN(hidden, time_steps, reset_uses_update_weights=reset_uses_update_weights)
        self.output = nn.Linear(hidden + channels, output_dim)
        self.classifier = make_elementwise(classifier, len(labels), output_dim)
        if prior_bias:
            start_at_prior(self.classifier, labels)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        x_BDHW = features[-1]
        if self.downsample > 1:  # pooling by 1 would copy the map, slowly
            check_pooling("ssgrl", x_BDHW, self.downsample, self.ceil_mode)
            x_BDHW = functional.avg_pool2d(x_BDHW, self.downsample, ceil_mode=self.ceil_mode)
        x_BCD = self.decoupling(x_BDHW, self.words())
        h_BCD = self.ggnn(self.project(x_BCD), self.adjacency)
        o_BCD = self.output(torch.cat((h_BCD, x_BCD), dim=-1)).tanh_()  # eq. 7
        return HeadOutput(self.classifier(o_BCD))  # eq. 8


class ProjectedWords(ConstantInEvaluation):
    """Word vectors [C, E] in the joint space of words and pixels: [C, K].

    Args:
        vectors_CE: the word vectors.
        joint: K.
    """

    vectors: Tensor

    def __init__(self, vectors_CE: Tensor, joint: int) -> None:
        super().__init__(len(vectors_CE), joint)
        self.register_buffer("vectors", vectors_CE)
        self.project = nn.Linear(vectors_CE.shape[1], joint, bias=False)

    def compute(self) -> Tensor:
        """The second factor of the product in eq. 1."""
        words_CK: Tensor = self.project(self.vectors)
        return words_CK


AUTHORS = {
    "word_semantic.fc_1": "decoupling.visual",
    "word_semantic.fc_2": "words.project",
    "word_semantic.fc_3": "decoupling.mix",
    "word_semantic.fc_a": "decoupling.score",
    "graph_net.fc_eq3_w": "ggnn.update_w",
    "graph_net.fc_eq3_u": "ggnn.update_u",
    "graph_net.fc_eq4_w": "ggnn.reset_w",
    "graph_net.fc_eq4_u": "ggnn.reset_u",
    "graph_net.fc_eq5_w": "ggnn.candidate_w",
    "graph_net.fc_eq5_u": "ggnn.candidate_u",
    "fc_output": "output",
    "classifiers": "classifier",
}
"""Names of layers in the authors' checkpoints -> names here."""
from_authors = partial(renamed, names=AUTHORS)
"""The head's part of an authors' state dict, by our names; it lacks graph and word vectors."""


RELEASED = Released(
    title="SSGRL (code commit ea47ccb)",
    marks=(r"^resnet_101\.", r"^word_semantic\.fc_1\."),
    trunk=resnet("resnet_101."),
    head=from_authors,
    options=lambda state: {
        "output_dim": len(state["fc_output.bias"]),
        "intermediary_dim": len(state["word_semantic.fc_1.weight"]),
    },
    settings={"head_options": {"reset_uses_update_weights": True, "ceil_mode": False}},
    label_axes={
        "classifier.bias": (0,),
        "classifier.weight": (0,),
        "adjacency": (0, 1),
        "words.vectors": (0,),
    },
    order=ORDER_BY_ID,
    needs={"graph": ("adjacency",), "words": ("words.vectors",)},
    graph=lambda probability_CC, options: {
        "adjacency": label_graph(options["graph"], probability_CC)
    },
    handed_over={"downsample": 1},
    variants={
        "logits_code": {"reset_uses_update_weights": True},
        "logits_paper": {"reset_uses_update_weights": False},
    },
    outputs={
        "semantic": lambda p: p.head.decoupling(p.features[-1], p.head.words()),
        "feature_mean": lambda p: p.features[-1].mean(dim=(2, 3)),
    },
)

RECIPE = Recipe(
    title="Learning Semantic-Specific Graph Representation for Multi-Label Image Recognition",
    bibtex="""@inproceedings{chen2019ssgrl,
  title     = {Learning Semantic-Specific Graph Representation for Multi-Label Image Recognition},
  author    = {Chen, Tianshui and Xu, Muxin and Hui, Xiaolu and Wu, Hefeng and Lin, Liang},
  booktitle = {ICCV},
  year      = {2019}
}""",
    summary="Word vectors guide one attention map a label; a gated graph network over the labels' "
    "co-occurrence relates the attended features before each label's own classifier.",
    settings=Settings(**SEMANTIC_GRAPHS, head="ssgrl"),
    dataset_options={"coco": {"unlabelled": True}, "voc2007": {"difficult_train": "negative"}},
    # At full width a round of the graph over 80 labels costs more than a small backbone. The map
    # of the probe's image size is as small as the paper's after its pooling.
    tuned={
        "probe": {
            "optimizer": {"lr": 3e-3},
            "head_options": {
                "hidden_dim": 128,
                "intermediary_dim": 256,
                "output_dim": 256,
                "downsample": 1,
            },
        }
    },
    reported=Reported.table(
        "dataset metric value note",
        ("coco", "mAP", 83.8, "ResNet-101, 576, COCO 2014 with images without labels"),
        ("coco", "CF1", 76.8, "ResNet-101, 576, COCO 2014 with images without labels"),
        ("coco", "OF1", 79.7, "ResNet-101, 576, COCO 2014 with images without labels"),
        ("voc2007", "mAP", 93.4, "ResNet-101, 576; interpolated AP, difficult = negative"),
        ("voc2007", "mAP", 95.0, "the same, trained on COCO first"),
        source="README of the authors' code, commit ea47ccb",
        status="verified",
    ),
    deviations=(
        "The reset gate has its own recurrent weights, as in the paper; the authors' code, and "
        "so its scores, uses the update gate's (head option reset_uses_update_weights).",
        "The two linear layers after the tanh are applied as one vector: the same function.",
        "Average pooling keeps the last row and column of maps of odd size; imported checkpoints "
        "drop them, as the authors' code does (head option ceil_mode).",
        "Graph and word vectors come from the training split by the core; the authors' files for "
        "both are not in their checkpoints.",
        "On VOC the authors count difficult objects as negatives in the test split too; here they "
        "are unknown there, as in the official evaluation.",
        "The authors train for up to 200 epochs and report the best one on the test split; "
        "here the last epoch counts.",
    ),
    released=(RELEASED,),
)
