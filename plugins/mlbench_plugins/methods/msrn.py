"""MSRN: label correlations, label groups and cross-modal attention at several scales.

Xiwen Qu, Hao Che, Jun Huang, Linchuan Xu, Xiao Zheng, "Multi-layered Semantic Representation
Network for Multi-label Image Classification", arXiv 2106.11596; International Journal of Machine
Learning and Cybernetics, 2023, doi 10.1007/s13042-023-01841-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import (
    FeatureSpec,
    HeadOutput,
    LabelContext,
    PluginError,
    Proof,
    Recipe,
    Released,
    Reported,
)
from mlbench_plugins.layers.channel_attention import channel_attention
from mlbench_plugins.layers.classifiers import ElementwiseClassifier, start_at_prior
from mlbench_plugins.layers.label_graph import conditional_probability, label_graph
from mlbench_plugins.layers.label_groups import LabelBranch
from mlbench_plugins.layers.options import check_choice, check_pooling, check_range
from mlbench_plugins.layers.pretrained import renamed, resnet
from mlbench_plugins.layers.training_protocols import BEST_EPOCH, NO_SNAPPING, multi_scale

NUMBERS = 2
"""Since 2 the attention is computed in blocks of channels, whose sums round differently."""
SCALES = 3
HIDDEN = 2048
LARGEST_MLP = 500_000_000
"""Weights of the first layer of the MLP: COCO's 80 labels need 264 million."""


class MSRN(nn.Module):
    """Graph attention embeds labels and groups of labels; both attend to three scales of features.

    Args:
        spec: levels of the backbone; the last three are used.
        labels: word vectors, and counts that give the graph.
        classifier: ``mlp`` on all vectors at once, as the authors' checkpoints have it (its first
            layer grows with the labels: 264 M weights for 80), or ``elementwise``, one linear
            classifier a label on that label's vector and its group's.
        label_dim: width D of labels, groups and projected maps.
        groups: number of label groups G; None gives 4, or a fifth of the labels where that is
            less: what the paper's ratios give on its data sets.
        threshold: least P(j | i) that links two labels.
        group_loss_weight: weight of the term that pulls labels to their group.
        downsample: side of the max pooling on every level; 1 for none.
        ceil_mode: keep the last row and column of maps of odd size, and maps of one pixel; the
            published code drops them.
        buffers: 1 x 1 convolutions on the two shallower levels, before the pooling.
        prior_bias: start each classifier's bias at its label's log-odds.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        labels: LabelContext,
        *,
        classifier: str = "mlp",
        label_dim: int = 512,
        groups: int | None = None,
        threshold: float = 0.4,
        group_loss_weight: float = 1e-4,
        downsample: int = 2,
        ceil_mode: bool = True,
        buffers: bool = True,
        prior_bias: bool = False,
    ) -> None:
        super().__init__()
        groups = min(4, max(1, len(labels) // 5)) if groups is None else groups
        _refuse(spec, len(labels), classifier, groups, label_dim)
        check_range("msrn", "(0, 1]", threshold=threshold)
        check_range("msrn", "[0, inf)", group_loss_weight=group_loss_weight)
        check_range("msrn", "[1, inf)", downsample=downsample, label_dim=label_dim)
        channels = [level.channels for level in spec[-SCALES:]]
        self.downsample, self.ceil_mode = downsample, ceil_mode
        self.group_loss_weight = group_loss_weight
        edges_CC = label_graph("reweighted", conditional_probability(labels), threshold) > 0
        words_CE = torch.tensor(labels.embeddings)
        self.branch = LabelBranch(words_CE, edges_CC, label_dim, groups)
        self.buffer_convs = nn.ModuleList(
            nn.Conv2d(c, c, 1) if buffers else nn.Identity() for c in channels[:-1]
        )
        self.project = nn.ModuleList(nn.Conv2d(c, label_dim, 1) for c in channels)
        self.classifier: nn.Module = (
            _MLP(len(labels), groups, label_dim)
            if classifier == "mlp"
            else ElementwiseClassifier(len(labels), 2 * SCALES * label_dim)
        )
        if prior_bias:
            last = self.classifier.fc2 if isinstance(self.classifier, _MLP) else self.classifier
            start_at_prior(last, labels)

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """Three maps to logits [B, C] and the weighted group loss as ``aux["group"]``."""
        nodes = self.branch.nodes()
        nodes_RD = torch.cat((nodes.labels, nodes.groups))
        scales = [channel_attention(p_BDHW, nodes_RD) for p_BDHW in self.project_maps(features)]
        v_BRD = torch.tanh(torch.cat(scales, dim=-1)).to(next(self.classifier.parameters()).dtype)
        if isinstance(self.classifier, ElementwiseClassifier):
            v_BCD, v_BGD = v_BRD.split((len(nodes.labels), len(nodes.groups)), dim=1)
            v_BRD = torch.cat((v_BCD, nodes.of_groups(v_BGD)), dim=-1)
        group = self.group_loss_weight * nodes.group_loss()
        return HeadOutput(self.classifier(v_BRD), {"group": group})

    def project_maps(self, features: tuple[Tensor, ...]) -> list[Tensor]:
        """Buffer, pool and project the last three maps to [B, D, H, W] each."""
        maps = []
        for i, (x_BDHW, project) in enumerate(zip(features[-SCALES:], self.project, strict=True)):
            if i < len(self.buffer_convs):
                x_BDHW = self.buffer_convs[i](x_BDHW)
            if self.downsample > 1:
                check_pooling("msrn", x_BDHW, self.downsample, self.ceil_mode)
                x_BDHW = functional.max_pool2d(x_BDHW, self.downsample, ceil_mode=self.ceil_mode)
            maps.append(project(x_BDHW))
        return maps


class _MLP(nn.Module):
    """All C + G vectors, flattened, to C logits."""

    def __init__(self, labels: int, groups: int, label_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(SCALES * label_dim * (labels + groups), HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, labels)

    def forward(self, v_BRD: Tensor) -> Tensor:
        logits_BC: Tensor = self.fc2(functional.leaky_relu(self.fc1(v_BRD.flatten(1))))
        return logits_BC


def _refuse(spec: FeatureSpec, labels: int, classifier: str, groups: int, label_dim: int) -> None:
    if len(spec) < SCALES:
        raise PluginError(
            f"msrn needs {SCALES} feature levels and the backbone gives {len(spec)}; take one with "
            "levels of stride 8, 16 and 32, such as resnet101, tresnet_l, efficientnetv2_s, "
            "convnext_tiny, swin_large_384 or mobilenetv2_100"
        )
    check_choice("classifier", classifier, ("mlp", "elementwise"))
    check_range("msrn", f"[1, {labels}]", groups=groups)
    weights = SCALES * label_dim * (labels + groups) * HIDDEN
    if classifier == "mlp" and weights > LARGEST_MLP:
        raise PluginError(
            f"msrn: with {labels} labels the first layer of its MLP classifier has "
            f"{weights / 1e9:.2f} billion weights; use the element-wise classifier: "
            "`head_options: {classifier: elementwise}`"
        )


AUTHORS = {
    "fc_label": "branch.fc_label",
    "label_embed.layers": "branch.label_embed",
    "group_embed.layers.0.embed": "branch.group_embed",
    "group_embed.layers.0.assign_mat": "branch.group_assign",
    "resnet_101.conv_buffer1": "buffer_convs.0",
    "resnet_101.conv_buffer2": "buffer_convs.1",
    "ProjectM": "project",
    "fc1": "classifier.fc1",
    "fc2": "classifier.fc2",
}
"""Names in the authors' checkpoints -> names here."""
from_authors = partial(renamed, names=AUTHORS)
"""The head's part of an authors' state dict under the names used here."""


def _reorder_mlp(state: dict[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
    """Reorder the MLP's first layer: one block of columns a label, then those of the groups."""
    key = "classifier.fc1.weight"
    label_dim = len(state["project.0.weight"])
    blocks_HRD = state[key].unflatten(1, (-1, SCALES * label_dim))
    rows = [*order, *range(len(order), blocks_HRD.shape[1])]
    return {**state, key: blocks_HRD[:, rows].flatten(1)}


def _published_group_loss(proof: Proof) -> Tensor:
    """The group loss added up as in the published code: in a float32 number, label by label."""
    nodes = proof.head.branch.nodes()
    group_CD = nodes.groups[nodes.assignment.argmax(dim=1)]
    total = torch.zeros((), dtype=torch.float32)
    for distance in (nodes.labels - group_CD).norm(dim=1):
        total += distance.float()
    weighted: Tensor = total * proof.head.group_loss_weight
    return weighted


RELEASED = Released(
    title="MSRN (code commit 469d28f)",
    marks=(r"^group_embed\.layers\.0\.assign_mat\.", r"^ProjectM\."),
    trunk=resnet("resnet_101."),
    head=from_authors,
    options=lambda state: {
        "groups": state["group_embed.layers.0.assign_mat.W"].shape[1],
        "label_dim": len(state["ProjectM.0.bias"]),
    },
    settings={"head_options": {"ceil_mode": False}},
    unused=(r"^W$", r"^B$", r"^resnet_101\.conv_buffer0\.", r"^resnet_101\.fc\."),
    label_axes={
        "classifier.fc2.bias": (0,),
        "classifier.fc2.weight": (0,),
        "branch.edges": (0, 1),
        "branch.words": (0,),
    },
    rearrange=_reorder_mlp,
    order={"coco": "alphabetical", "voc2007": "alphabetical", "apparel": "official"},
    needs={"graph": ("branch.edges",), "words": ("branch.words",)},
    graph=lambda probability_CC, options: {
        "branch.edges": label_graph("reweighted", probability_CC, options["threshold"]) > 0
    },
    handed_over={"downsample": 1, "buffers": False},
    outputs={
        "adjacency": lambda p: label_graph(
            "reweighted", p.graph, p.fixture["threshold"], p.fixture["p"]
        ),
        "label_embedding": lambda p: p.head.branch.nodes().labels,
        "group_embedding": lambda p: p.head.branch.nodes().groups,
        "assignment": lambda p: p.head.branch.nodes().assignment,
        "group_loss": _published_group_loss,
    },
)

RECIPE = Recipe(
    title="Multi-layered Semantic Representation Network for Multi-label Image Classification",
    bibtex="""@article{qu2023msrn,
  title   = {Multi-layered Semantic Representation Network for Multi-label Image Classification},
  author  = {Qu, Xiwen and Che, Hao and Huang, Jun and Xu, Linchuan and Zheng, Xiao},
  journal = {International Journal of Machine Learning and Cybernetics},
  year    = {2023},
  doi     = {10.1007/s13042-023-01841-6},
  note    = {arXiv:2106.11596}
}""",
    summary="Graph attention over word vectors embeds labels and learned groups of labels; each "
    "attends, channel by channel, to features of three depths, and all vectors are classified "
    "together.",
    settings=multi_scale(
        "msrn", 0.1, (30,), scales=(1.0, 0.9, 0.8, 0.7, 0.6), epochs=200, batch_size=12
    ),
    per_dataset={"voc2007": {"batch_size": 24}},
    dataset_options={"voc2007": {"difficult_train": "positive"}},
    # 264 million weights for 80 labels learn little from frozen maps; more pooling saves most of
    # the exponentials.
    tuned={
        "probe": {
            "optimizer": {"lr": 1e-3},
            "head_options": {"classifier": "elementwise", "downsample": 4},
        },
    },
    reported=Reported.table(
        "dataset value note",
        ("coco", 83.4, "ResNet-101, 448, COCO 2014"),
        ("voc2007", 96.0, "ResNet-101, 448, trained on COCO first"),
        metric="mAP",
        source="paperswithcode",
        status="secondary",
    ),
    deviations=(
        "The authors give no training command: the learning rate 0.1 is their code's default and "
        "may not be what the scores were made with; batch sizes are those of their evaluation.",
        "Their code clips gradients before there are any, which does nothing; here nothing is "
        "clipped unless grad_clip is set.",
        "The graph is made from right label counts of the training split; the authors' files for "
        "NUS-WIDE and Apparel hold wrong ones.",
        "Their F1 scores take the best of 20 thresholds on the test split and are not comparable; "
        "here the threshold is 0.5.",
        "The element-wise classifier is commented out in their code. Its 3072 weights a label are "
        "read as twice the 1536 of a node: the label's vector and that of the group it is most "
        "assigned to, after the tanh. An assumption.",
        "Max pooling keeps the last row and column of maps of odd size; imported checkpoints drop "
        "them, as the authors' code does (head option ceil_mode).",
        NO_SNAPPING,
        BEST_EPOCH,
    ),
    released=(RELEASED,),
)
