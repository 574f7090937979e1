"""Graph convolution on label nodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GraphConvolution(nn.Module):
    """Mix the nodes along the graph and project them: [C, D] -> [C, D'], without bias.

    Thomas Kipf, Max Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
    ICLR 2017, eq. 2 without its activation.

    Args:
        channels, width: D and D'.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, width))
        bound = width**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, nodes_CD: Tensor, adjacency_CC: Tensor) -> Tensor:
        """Row i of the result sums the nodes j by ``adjacency_CC[i, j]``."""
        mixed_CD: Tensor = adjacency_CC @ (nodes_CD @ self.weight)
        return mixed_CD
