"""Graph attention on label nodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class GraphAttention(nn.Module):
    """One head of graph attention with a residual connection: [C, D] -> [C, D'].

    Petar Veličković et al., "Graph Attention Networks", ICLR 2018, eq. 1 to 4, plus the projected
    node itself before the ELU, as MSRN has it.

    Args:
        channels, width: D and D'.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels, width))
        self.a = nn.Parameter(torch.empty(2 * width, 1))
        nn.init.xavier_uniform_(self.W, gain=1.414)
        nn.init.xavier_uniform_(self.a, gain=1.414)

    def forward(self, nodes_CD: Tensor, edges_CC: Tensor) -> Tensor:
        """Nodes attend to those that the boolean mask ``edges_CC`` (row to column) allows."""
        h_CD = nodes_CD @ self.W
        own_C1, other_C1 = (h_CD @ half_D1 for half_D1 in self.a.chunk(2))
        scores_CC = functional.leaky_relu(own_C1 + other_C1.T, 0.2)
        weights_CC = scores_CC.masked_fill(~edges_CC, -torch.inf).softmax(dim=1)
        return functional.elu(weights_CC.to(h_CD.dtype) @ h_CD + h_CD)
