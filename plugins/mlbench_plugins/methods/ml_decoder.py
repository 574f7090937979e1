"""ML-Decoder: a cross-attention head whose queries each stand for a group of labels.

Tal Ridnik, Gilad Sharir, Avi Ben-Cohen, Emanuel Ben-Baruch, Asaf Noy, "ML-Decoder: Scalable and
Versatile Classification Head", WACV 2023, arXiv 2111.12933.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import (
    FeatureSpec,
    HeadOutput,
    LabelContext,
    PluginError,
    Recipe,
    Released,
    Reported,
    Settings,
)
from mlbench_plugins.layers.classifiers import GroupClassifier, make_classifier, start_at_prior
from mlbench_plugins.layers.decoder import RELEASED_AS, DecoderSizes, QueryDecoder, group_count
from mlbench_plugins.layers.options import check_choice
from mlbench_plugins.layers.pretrained import ORDER_BY_ID, tresnet
from mlbench_plugins.layers.training_protocols import ASYMMETRIC, KEEPS_BETTER


class MLDecoder(nn.Module):
    """Fixed queries attend to the deepest map; the vector of each gives its group's logits.

    Args:
        spec: levels of the backbone; the last is used.
        labels: with ``queries="words"`` their word vectors, else only their number.
        groups: largest number of queries, -1 for 100; there are never more than labels.
        embedding_dim: width of the decoder.
        heads: number of its attention heads.
        feedforward: width of its hidden layer.
        dropout: everywhere in the decoder.
        queries: ``random``: vectors that are drawn once and never trained; ``words``: one query a
            label, relu(Linear(word vector)), and one classifier for all. No weight then belongs to
            a label: to score other labels, unseen ones too, assign their vectors [C', E] to
            ``words``.
        classifier: ``linear``, or ``cosine`` for losses that work on angles.
        prior_bias: start each bias at its label's log-odds; not with ``words``.
    """

    queries: Tensor
    words: Tensor

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
        queries: str = "random",
        classifier: str = "linear",
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        sizes = DecoderSizes(embedding_dim, heads, feedforward, dropout)
        self.decoder = QueryDecoder(spec[-1].channels, sizes, nn.ReLU())
        self.zero_shot = check_choice("queries", queries, ("random", "words")) == "words"
        if self.zero_shot:
            if groups != -1:
                raise PluginError(
                    f"ml_decoder: with queries='words' each label is a query of its own, so "
                    f"groups={groups} cannot be; leave groups at -1"
                )
            self.register_buffer("words", torch.tensor(labels.embeddings))
            self.word = nn.Linear(labels.embeddings.shape[1], embedding_dim)
            self.classifier = make_classifier(classifier, 1, embedding_dim)
        else:
            count = group_count(groups, len(labels))
            self.register_buffer("queries", torch.randn(count, embedding_dim))
            self.classifier = GroupClassifier(len(labels), count, embedding_dim, classifier)
        if prior_bias and self.zero_shot:
            raise PluginError(
                "ml_decoder: with queries='words' all labels share one classifier, whose bias "
                "belongs to none; leave out prior_bias"
            )
        if prior_bias:
            start_at_prior(self.classifier, labels)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """The deepest map [B, D, H, W] to logits [B, C]."""
        if self.zero_shot:
            queries_CE = functional.relu(self.word(self.words))
            return HeadOutput(self.classifier(self.decoder(features[-1], queries_CE)).squeeze(-1))
        queries_KE = self.queries[: self.classifier.used]
        return HeadOutput(self.classifier(self.decoder(features[-1], queries_KE)))


MODEL_ZOO = "MODEL_ZOO.md of the authors' code, commit 8a9e984"
"""Where the authors' scores were read."""

RELEASED = Released(
    title="ML-Decoder's TResNet-L (code commit 8a9e984)",
    marks=(r"^body\.conv1\.0\.", r"^head\.decoder\.duplicate_pooling$"),
    trunk=tresnet("body."),
    **RELEASED_AS,
    order=ORDER_BY_ID,
)

RECIPE = Recipe(
    title="ML-Decoder: Scalable and Versatile Classification Head",
    bibtex="""@inproceedings{ridnik2023mldecoder,
  title     = {{ML-Decoder}: Scalable and Versatile Classification Head},
  author    = {Ridnik, Tal and Sharir, Gilad and Ben-Cohen, Avi and Ben-Baruch, Emanuel and
               Noy, Asaf},
  booktitle = {WACV},
  year      = {2023}
}""",
    summary="One decoder layer without self-attention: fixed random queries, one for a group of "
    "labels, attend to the map, and each group's labels are classified from its query's vector.",
    settings=Settings(
        **ASYMMETRIC,
        backbone="tresnet_v2_l",
        head="ml_decoder",
        loss="asl",
        loss_options={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05, "reduction": "sum"},
        image_size=448,
        epochs=40,
        batch_size=56,
    ),
    tuned={
        "probe": {
            "optimizer": {"lr": 3e-3},
            "head_options": {"embedding_dim": 256, "feedforward": 512},
        },
    },
    reported=Reported.table(
        "dataset value source status note",
        ("coco", 90.0, MODEL_ZOO, "verified", "TResNet-L (v2), 448, COCO 2014"),
        ("coco", 84.2, MODEL_ZOO, "verified", "TResNet-M, 224, COCO 2014"),
        ("coco", 91.4, MODEL_ZOO, "verified", "TResNet-XL, 640, COCO 2014"),
        ("coco", 91.1, "paperswithcode.com", "secondary", "TResNet-L, 640, COCO 2014"),
        ("voc2007", 96.6, "wizwand.com", "secondary", "backbone and size are not stated there"),
        metric="mAP",
    ),
    deviations=(
        "Queries that serve no label (with 120 labels and 100 groups, 40 of them) are not decoded: "
        "the same function, as queries do not attend to each other.",
        "Without dropout the first norm and the projection of the queries are computed once for "
        "all images: the same function.",
        "The group size is ceil(labels / groups); the authors' int(labels / groups + 0.999) would "
        "come out one too small where that fraction ends below .001.",
        "The paper's zero-shot form has queries='words'; its published weights have no mapping, "
        "and on angles its shared classifier has no bias.",
        "The strength of RandAugment is the default of this project's.",
        "The authors start from weights of their own (tresnet_l_pretrain_ml_decoder); here it is "
        "timm's ImageNet-21k-P weights of the same TResNet.",
        KEEPS_BETTER,
    ),
    released=(RELEASED,),
)
