"""The blocks of a transformer, normalised after each residual sum.

Ashish Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.

Letters beyond those of ``mlbench.types``: K queries, N keys, D channels. A batch of one stands for
queries that are the same for all images: what depends on queries alone is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import PluginError


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in several subspaces; parameters as ``nn.MultiheadAttention``'s.

    Args:
        channels: D.
        heads: number of subspaces.
        dropout: of the attention weights.

    Raises:
        PluginError: the channels cannot be divided by the heads.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise PluginError(
                f"attention over {channels} channels cannot have {heads} heads; choose a number "
                "of heads that divides the width, or another width"
            )
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query_BKD: Tensor, key_BND: Tensor, value_BND: Tensor) -> Tensor:
        """Queries [B or 1, K, D], keys and values [B, N, D] to [B, K, D]."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        query, key, value = (
            functional.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(
                (query_BKD, key_BND, value_BND), weights, biases, strict=True
            )
        )
        mixed = functional.scaled_dot_product_attention(
            query.expand(len(key), -1, -1, -1),
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
        )
        attended_BKD: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return attended_BKD


class AttentionBlock(nn.Module):
    """LN(x + dropout(attention)).

    Args:
        channels, heads, dropout: of the attention.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(channels, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, x_BKD: Tensor, query_BKD: Tensor, key_BND: Tensor, value_BND: Tensor
    ) -> Tensor:
        """What the queries find, added to ``x`` [B or 1, K, D]: [B, K, D]."""
        found_BKD = self.attention(query_BKD, key_BND, value_BND)
        normed_BKD: Tensor = self.norm(x_BKD + self.dropout(found_BKD))
        return normed_BKD


class FeedForwardBlock(nn.Module):
    """LN(x + dropout(W2 dropout(relu(W1 x)))).

    Args:
        channels: of the input and the output.
        hidden: width in between.
        dropout: of both layers.
    """

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BKD: Tensor) -> Tensor:
        """[B, K, D] to [B, K, D]."""
        hidden = self.dropout(functional.relu(self.linear1(x_BKD)))
        normed_BKD: Tensor = self.norm(x_BKD + self.dropout(self.linear2(hidden)))
        return normed_BKD
