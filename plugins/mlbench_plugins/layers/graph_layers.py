"""Layers over the nodes of a label graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class GraphAttention(nn.Module):
    """One head of graph attention: [C, D] -> [C, D'].

    Petar Veličković et al., "Graph Attention Networks", ICLR 2018, eq. 1 to 4.

    Args:
        channels, width: D and D'.
        residual: add the projected node itself before the ELU, as MSRN does.
        dropout: rate on the attention weights.
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
        """Let each node (row) attend to the nodes (columns) where ``edges_CC`` is True.

        A node without an edge attends to all nodes equally.
        """
        h_CD = nodes_CD @ self.W
        own_C1, other_C1 = (h_CD @ half_D1 for half_D1 in self.a.chunk(2))
        scores_CC = functional.leaky_relu(own_C1 + other_C1.T, 0.2)
        # The lowest finite number: the softmax of a row of -inf would be NaN.
        lowest = torch.finfo(scores_CC.dtype).min
        weights_CC = scores_CC.masked_fill(~edges_CC, lowest).softmax(dim=1)
        weights_CC = functional.dropout(weights_CC, self.dropout, self.training)
        attended_CD = weights_CC.to(h_CD.dtype) @ h_CD
        return functional.elu(attended_CD + h_CD if self.residual else attended_CD)


class GGNN(nn.Module):
    """Label states [B, C, D] exchange messages along a graph, gated as in a GRU.

    Yujia Li, Daniel Tarlow, Marc Brockschmidt, Richard Zemel, "Gated Graph Sequence Neural
    Networks", ICLR 2016, in the form of SSGRL (ICCV 2019, eq. 6).

    Args:
        channels: D.
        time_steps: number of exchanges.
        reset_uses_update_weights: the reset gate takes the update gate's recurrent layer, as
            SSGRL's published code does, contrary to its paper; its own layer stays, untrained.
    """

    def __init__(
        self, channels: int, time_steps: int, *, reset_uses_update_weights: bool = False
    ) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.reset_uses_update_weights = reset_uses_update_weights
        self.update_w = nn.Linear(2 * channels, channels)
        self.update_u = nn.Linear(channels, channels)
        self.reset_w = nn.Linear(2 * channels, channels)
        self.reset_u = nn.Linear(channels, channels)
        self.candidate_w = nn.Linear(2 * channels, channels)
        self.candidate_u = nn.Linear(channels, channels)
        self.reset_u.requires_grad_(not reset_uses_update_weights)

    def forward(self, h_BCD: Tensor, adjacency_CC: Tensor) -> Tensor:
        """States after all steps; messages come along ``adjacency_CC`` and its transpose."""
        for _ in range(self.time_steps):
            h_BCD = self._step(h_BCD, adjacency_CC.to(h_BCD.dtype))
        return h_BCD

    def _step(self, h_BCD: Tensor, adjacency_CC: Tensor) -> Tensor:
        message = torch.cat((adjacency_CC @ h_BCD, adjacency_CC.T @ h_BCD), dim=-1)
        recurrent_BCD = self.update_u(h_BCD)
        z_BCD = self.update_w(message).add_(recurrent_BCD).sigmoid_()
        if not self.reset_uses_update_weights:
            recurrent_BCD = self.reset_u(h_BCD)
        r_BCD = self.reset_w(message).add_(recurrent_BCD).sigmoid_()
        del recurrent_BCD
        new_BCD = self.candidate_w(message)
        del message
        new_BCD = new_BCD.add_(self.candidate_u(r_BCD * h_BCD)).tanh_()
        return torch.lerp(h_BCD, new_BCD, z_BCD)
