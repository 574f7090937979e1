"""GRL: representations of the labels, learned on their graph, guide the decoupling of features.

Yilu Chen, Changzhong Zou, Jianli Chen, "Label-aware graph representation learning for multi-label
image classification", Neurocomputing 492, 2022, doi 10.1016/j.neucom.2022.04.004.

There is no public code: this is an unvalidated re-implementation from descriptions of the paper.
What the descriptions leave open is an option; its default is SSGRL's choice, if SSGRL made one
(Tianshui Chen et al., ICCV 2019, arXiv 1908.07325; equation numbers below are SSGRL's).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import FeatureSpec, HeadOutput, LabelContext, Recipe, Settings
from mlbench_plugins.layers.classifiers import make_elementwise, start_at_prior
from mlbench_plugins.layers.constant import ConstantInEvaluation
from mlbench_plugins.layers.decoupling import SemanticDecoupling
from mlbench_plugins.layers.graph_layers import GGNN
from mlbench_plugins.layers.label_graph import conditional_probability, label_graph
from mlbench_plugins.layers.options import check_range
from mlbench_plugins.layers.training_protocols import SEMANTIC_GRAPHS

NUMBERS = 2
"""Since 2 a CPU computes the tanh of eq. 1 as a sigmoid, which rounds differently."""


class GRL(nn.Module):
    """Two graph networks: over label embeddings, and over the features that these attend to.

    Args:
        spec: levels of the backbone; the last, of D channels, is used.
        labels: word vectors, and counts that give the graph of both networks.
        classifier: one a label; ``linear``, or ``cosine`` for losses that work on angles.
        label_dim: width of the label representations; a linear layer brings the word vectors to
            it. A round costs 9 C label_dim^2 multiply-accumulates a batch in training, and nothing
            in evaluation.
        label_time_steps: rounds of messages between label embeddings; 0 takes them as projected.
        graph: graph of the messages in both networks, a name of ``layers.label_graph``.
        counts: the denominator of P(j | i), ``images`` or ``objects`` (``layers.label_graph``).
        intermediary_dim: width of a joint space of labels and pixels, where the decoupling takes
            place. None decouples in the visual space itself: labels are projected to D, pixels are
            taken as they are.
        hidden_dim: width of the second network's state; a linear layer brings the label-wise
            visual features to it. None takes them as they are, D wide; a round costs
            9 C hidden_dim^2 multiply-accumulates an image.
        time_steps: rounds of messages between label-wise visual features.
        output_dim: width of the vector that a label's classifier sees.
        downsample: side of the average pooling on the map; 1 for none.
        prior_bias: start each bias at its label's log-odds.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        classifier: str = "linear",
        label_dim: int = 1024,
        label_time_steps: int = 3,
        graph: str = "conditional",
        counts: str = "images",
        intermediary_dim: int | None = None,
        hidden_dim: int | None = None,
        time_steps: int = 3,
        output_dim: int = 2048,
        downsample: int = 2,
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        widths = {"label_dim": label_dim, "hidden_dim": hidden_dim, "output_dim": output_dim}
        check_range("grl", "[1, inf)", intermediary_dim=intermediary_dim, **widths)
        check_range("grl", "[1, inf)", time_steps=time_steps, downsample=downsample)
        check_range("grl", "[0, inf)", label_time_steps=label_time_steps)
        channels = spec[-1].channels
        hidden = hidden_dim or channels
        self.downsample = downsample
        words_CE = torch.tensor(labels.embeddings)
        probability_CC = conditional_probability(labels, counts).to(words_CE.dtype)
        graph_CC = label_graph(graph, probability_CC)
        guide = intermediary_dim or channels
        self.labels = LabelStream(words_CE, graph_CC, label_dim, label_time_steps, guide)
        self.decoupling = SemanticDecoupling(channels, intermediary_dim)
        self.project = nn.Linear(channels, hidden) if hidden_dim else nn.Identity()
        self.ggnn = GGNN(hidden, time_steps)
        self.output = nn.Linear(hidden + channels, output_dim)
        self.classifier = make_elementwise(classifier, len(labels), output_dim)
        if prior_bias:
            start_at_prior(self.classifier, labels)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        x_BDHW = features[-1]
        if self.downsample > 1:  # ceil_mode keeps the last row and column of odd maps
            x_BDHW = functional.avg_pool2d(x_BDHW, self.downsample, ceil_mode=True)
        x_BCD = self.decoupling(x_BDHW, self.labels())  # eq. 1 to 5
        h_BCD = self.ggnn(self.project(x_BCD), self.labels.adjacency)  # eq. 6
        o_BCD = torch.tanh(self.output(torch.cat((h_BCD, x_BCD), dim=-1)))  # eq. 7
        return HeadOutput(self.classifier(o_BCD))  # eq. 8


class LabelStream(ConstantInEvaluation):
    """Word vectors [C, E] to label representations by a gated graph network, projected to [C, K].

    Args:
        words_CE: the word vectors.
        graph_CC: graph of the messages.
        width: width of the representations.
        time_steps: rounds of messages; 0 leaves out the graph network.
        guide: K, width of the space of the decoupling.
    """

    adjacency: Tensor
    words: Tensor

    def __init__(
        self, words_CE: Tensor, graph_CC: Tensor, width: int, time_steps: int, guide: int
    ) -> None:
        super().__init__(len(words_CE), guide)
        self.register_buffer("adjacency", graph_CC)
        self.register_buffer("words", words_CE)
        self.project = nn.Linear(words_CE.shape[1], width)
        self.ggnn = GGNN(width, time_steps) if time_steps else None
        self.guide = nn.Linear(width, guide, bias=False)

    def compute(self) -> Tensor:
        """Compute the representations [C, K] that guide the decoupling."""
        h_CE = self.project(self.words)
        if self.ggnn is not None:
            h_CE = self.ggnn(h_CE, self.adjacency)
        guides_CK: Tensor = self.guide(h_CE)
        return guides_CK


RECIPE = Recipe(
    title="Label-aware graph representation learning for multi-label image classification",
    bibtex="""@article{chen2022lgr,
  title   = {Label-aware graph representation learning for multi-label image classification},
  author  = {Chen, Yilu and Zou, Changzhong and Chen, Jianli},
  journal = {Neurocomputing},
  volume  = {492},
  pages   = {50--61},
  year    = {2022},
  doi     = {10.1016/j.neucom.2022.04.004}
}""",
    summary="A gated graph network turns word vectors into label representations, which guide one "
    "attention map a label; a second one over the same co-occurrence relates the attended "
    "features before each label's own classifier.",
    settings=Settings(**SEMANTIC_GRAPHS, head="grl"),
    # As for SSGRL: a round of either graph at full width costs more than a small backbone.
    tuned={
        "probe": {
            "optimizer": {"lr": 3e-3},
            "head_options": {
                "label_dim": 128,
                "hidden_dim": 128,
                "intermediary_dim": 256,
                "output_dim": 256,
                "downsample": 1,
            },
        }
    },
    deviations=(
        "Unvalidated: the authors published no code and no score of theirs could be read, so this "
        "is a re-implementation from descriptions that nothing was compared with.",
        "Assumed, unvalidated: the label stream is SSGRL's gated graph network on word vectors "
        "projected to 1024, with three rounds on P(j | i) without its diagonal (head options "
        "label_dim, label_time_steps).",
        "Assumed, unvalidated: the decoupling is SSGRL's formula with label representations for "
        "word vectors. That labels are projected into the visual space is read as: pixels are not "
        "projected (head option intermediary_dim; 1024 is SSGRL's joint space of both).",
        "Assumed, unvalidated: the second graph network is SSGRL's, on the same graph, as wide as "
        "the features, with three rounds (head options hidden_dim, time_steps), and the map is "
        "halved before (head option downsample).",
        "Assumed, unvalidated: a label's classifier is linear, on tanh of one layer over the "
        "graph's state and the attended feature (head options classifier, output_dim).",
        "Assumed, unvalidated: all of the training is SSGRL's: backbone, image size, crops, loss, "
        "optimiser, batch size, frozen stages and epochs. The authors found interpolation, batch "
        "size, distortion, synchronised batch norm and the range of the resize scale decisive; "
        "their values are not known, and benchmarks/ablation_recipe.yaml varies them. Which images "
        "of COCO and difficult objects of VOC they counted is not known either: those of our data "
        "sets' defaults are counted here, not SSGRL's.",
    ),
)
