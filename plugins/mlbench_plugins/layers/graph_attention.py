"""Graph attention on label nodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class GraphAttention(nn.Module):
    """One head of graph attention: [C, D] -> [C, D'].

    Petar Veličković et al., "Graph Attention Networks", ICLR 2018, eq. 1 to 4.

    Args:
        channels, width: D and D'.
        residual: add the projected node itself before the ELU, as MSRN does.
        dropout: share of the attention weights that training leaves out.
    """

    def __init__(
        self, channels: int, width: int, *, residual: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.residual = residual
        self.dropout = dropout
        self.W = nn.Parameter(torch.empty(channels, width))
        self.a = nn.Parameter(torch.empty(2 * width, 1))
        nn.init.xavier_uniform_(self.W, gain=1.414)
        nn.init.xavier_uniform_(self.a, gain=1.414)

    def forward(self, nodes_CD: Tensor, edges_CC: Tensor) -> Tensor:
        """Nodes attend to those that the boolean mask ``edges_CC`` (row to column) allows.

        A node that has no edge attends to all nodes alike.
        """
        h_CD = nodes_CD @ self.W
        own_C1, other_C1 = (h_CD @ half_D1 for half_D1 in self.a.chunk(2))
        scores_CC = functional.leaky_relu(own_C1 + other_C1.T, 0.2)
        # The lowest finite number: a row of infinities has no softmax.
        lowest = torch.finfo(scores_CC.dtype).min
        weights_CC = scores_CC.masked_fill(~edges_CC, lowest).softmax(dim=1)
        weights_CC = functional.dropout(weights_CC, self.dropout, self.training)
        attended_CD = weights_CC.to(h_CD.dtype) @ h_CD
        return functional.elu(attended_CD + h_CD if self.residual else attended_CD)
