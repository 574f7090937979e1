"""Embeddings of labels and of learned groups of labels, by graph attention over word vectors.

Xiwen Qu et al., "Multi-layered Semantic Representation Network for Multi-label Image
Classification", arXiv 2106.11596.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlbench_plugins.layers.constant import ConstantInEvaluation
from mlbench_plugins.layers.graph_layers import GraphAttention


class LabelNodes(NamedTuple):
    """Embeddings of labels [C, D] and groups [G, D], and the assignment [C, G]."""

    labels: Tensor
    groups: Tensor
    assignment: Tensor

    def group_loss(self) -> Tensor:
        """The sum of the distances between each label and the group it is most assigned to."""
        distances_C: Tensor = torch.linalg.vector_norm(
            self.labels - self.of_groups(self.groups), dim=1
        )
        return distances_C.sum()

    def of_groups(self, x_BGD: Tensor) -> Tensor:
        """Give each label the row of its most likely group: [..., G, D] -> [..., C, D].

        This is a matrix product, since the gradient of indexing adds up rows one at a time.
        """
        groups_G = torch.arange(self.assignment.shape[1], device=x_BGD.device)
        chosen_CG = self.assignment.argmax(dim=1, keepdim=True) == groups_G
        return chosen_CG.to(x_BGD.dtype) @ x_BGD


class LabelBranch(ConstantInEvaluation):
    """Word vectors [C, E] to embeddings of labels and groups, and labels' assignment to groups.

    Args:
        words_CE: the word vectors.
        edges_CC: a boolean mask of the graph.
        label_dim: D.
        groups: G.
    """

    edges: Tensor
    words: Tensor

    def __init__(self, words_CE: Tensor, edges_CC: Tensor, label_dim: int, groups: int) -> None:
        count = len(words_CE)
        shapes = (count, label_dim), (groups, label_dim), (count, groups)
        super().__init__(sum(math.prod(shape) for shape in shapes))
        self.shapes = shapes
        self.register_buffer("edges", edges_CC)
        self.register_buffer("words", words_CE)
        self.fc_label = nn.Linear(words_CE.shape[1], 256)
        self.label_embed = nn.ModuleList([GraphAttention(256, 300), GraphAttention(300, label_dim)])
        self.group_embed = GraphAttention(label_dim, label_dim)
        self.group_assign = GraphAttention(label_dim, groups)

    def nodes(self) -> LabelNodes:
        """Embeddings and assignment, from the constant in evaluation."""
        parts = self().split([math.prod(shape) for shape in self.shapes])
        return LabelNodes(*(x.view(shape) for x, shape in zip(parts, self.shapes, strict=True)))

    def compute(self) -> Tensor:
        """Embeddings and assignment, concatenated into one vector."""
        labels_CD = self.fc_label(self.words)
        for layer in self.label_embed:
            labels_CD = layer(labels_CD, self.edges)
        nodes_CD = labels_CD.relu()
        assignment_CG = self.group_assign(nodes_CD, self.edges).softmax(dim=1)
        members_CD = self.group_embed(nodes_CD, self.edges)
        groups_GD = assignment_CG.T.to(members_CD.dtype) @ members_CD
        return torch.cat([x.flatten() for x in (labels_CD, groups_GD, assignment_CG)])
