"""A gated graph neural network over label nodes.

Yujia Li, Daniel Tarlow, Marc Brockschmidt, Richard Zemel, "Gated Graph Sequence Neural Networks",
ICLR 2016, in the form of SSGRL (ICCV 2019, eq. 6).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GGNN(nn.Module):
    """Label states [B, C, D] exchange messages along a graph, gated as in a GRU.

    Args:
        channels: D.
        time_steps: how often.
        reset_uses_update_weights: the reset gate takes the update gate's recurrent layer, as
            SSGRL's published code does against its paper (its own layer stays, untrained).
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
        z_BCD = torch.sigmoid(self.update_w(message) + recurrent_BCD)
        if not self.reset_uses_update_weights:
            recurrent_BCD = self.reset_u(h_BCD)
        r_BCD = torch.sigmoid(self.reset_w(message) + recurrent_BCD)
        new_BCD = torch.tanh(self.candidate_w(message) + self.candidate_u(r_BCD * h_BCD))
        return torch.lerp(h_BCD, new_BCD, z_BCD)
