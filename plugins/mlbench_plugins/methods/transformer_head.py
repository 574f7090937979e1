"""ML-Decoder on angles: the transformer head of the metric-learning approach to multi-label.

Kirill Prokofiev, Vladislav Sovrasov, "Combining Metric Learning and Attention Heads For Accurate
and Efficient Multilabel Image Classification", VISAPP 2023, arXiv 2209.06585.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlbench.types import FeatureSpec, HeadOutput, LabelContext, Recipe, Released, Reported
from mlbench_plugins.layers.classifiers import GroupClassifier, start_at_prior
from mlbench_plugins.layers.decoder import RELEASED_AS, DecoderSizes, QueryDecoder, group_count
from mlbench_plugins.layers.metric_learning import DEVIATIONS, shared_fields, unscaled
from mlbench_plugins.layers.pretrained import timm_names


class TransformerHead(nn.Module):
    """The decoder of ML-Decoder; logits are scaled cosines of each vector and a label's weights.

    The bias is added to the cosine before the scale, so a logit may exceed the scale.

    Args:
        spec: levels of the backbone; the last is used.
        labels: only their number is used.
        groups: largest number of queries, -1 for 100; there are never more than labels.
        embedding_dim: width of the decoder.
        heads: number of its attention heads.
        feedforward: width of its hidden layer.
        dropout: everywhere in the decoder.
        classifier: ``cosine``, with a leaky ReLU after the embedding; or ``linear``, with a ReLU,
            which is ML-Decoder itself.
        prior_bias: start each bias at its label's log-odds; with ``linear`` alone.
    """

    queries: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        groups: int = -1,
        embedding_dim: int = 768,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        classifier: str = "cosine",
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        activation = nn.LeakyReLU(0.2) if classifier == "cosine" else nn.ReLU()
        sizes = DecoderSizes(embedding_dim, heads, feedforward, dropout)
        self.decoder = QueryDecoder(spec[-1].channels, sizes, activation)
        count = group_count(groups, len(labels))
        self.register_buffer("queries", torch.randn(count, embedding_dim))
        self.classifier = GroupClassifier(len(labels), count, embedding_dim, classifier)
        if prior_bias:
            start_at_prior(self.classifier, labels)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        queries_KE = self.queries[: self.classifier.used]
        return HeadOutput(self.classifier(self.decoder(features[-1], queries_KE)))


README = "README of the authors' code, branch multilabel, commit 4e91540a"
ARCHIVE = "sotaverified.org, an archive of paperswithcode.com"
"""Sources of the scores: the authors' page, and an archive with others' copies."""


RELEASED = Released(
    title="deep-object-reid's transformer head (branch multilabel-paper, commit 469ec397)",
    marks=(r"^backbone\.model\.", r"^decoder\.duplicate_pooling$"),
    trunk=timm_names("backbone.model."),
    **RELEASED_AS,
    unused=(r"^backbone\.model\.(classifier|head|fc)\.",),
    order="alphabetical",
    outputs={"logits": unscaled},
)

RECIPE = Recipe(
    **shared_fields("transformer_head"),
    summary="ML-Decoder whose logits are scaled cosines between each query's vector and the "
    "labels' weights, trained with an angular margin loss.",
    tuned={
        "probe": {
            "optimizer": {"lr": 3e-3},
            "head_options": {"embedding_dim": 256, "feedforward": 512},
        },
    },
    reported=Reported.table(
        "dataset value source status note",
        ("coco", 88.75, README, "verified", "EfficientNetV2-S from OpenImages, 448"),
        ("coco", 90.10, README, "verified", "EfficientNetV2-L, 448"),
        ("coco", 90.30, README, "verified", "TResNet-L (v2), 448"),
        ("coco", 91.3, ARCHIVE, "secondary", "TResNet-L (v2), 640"),
        ("voc2007", 95.86, README, "verified", "EfficientNetV2-S from OpenImages, 448"),
        ("voc2007", 96.05, README, "verified", "EfficientNetV2-L, 448"),
        ("voc2007", 96.70, README, "verified", "TResNet-L (v2), 448"),
        ("nuswide", 68.3, ARCHIVE, "secondary", "TResNet-L (v2), 448"),
        metric="mAP",
    ),
    deviations=(
        "The decoder is ML-Decoder's, with the same shortcuts for queries that serve no label and "
        "for what does not depend on the image.",
        "The strength of RandAugment is the default of this project's.",
        "The authors start EfficientNetV2-S from OpenImages weights of their own, TResNet-L from "
        "ML-Decoder's; here it is timm's default weights.",
        *DEVIATIONS,
    ),
    released=(RELEASED,),
)
