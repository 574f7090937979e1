"""Blocks of transformers, normalised after each residual sum.

Ashish Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3. The encoder and decoder
layers read a feature map and add position codes to what is compared: Nicolas Carion et al.,
"End-to-End Object Detection with Transformers", ECCV 2020, appendix A.3.

Letters beyond those of ``mlbench.types``: K queries, N keys, D channels. A batch of one holds
queries that all images share, so that what depends on queries alone is computed once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench.types import PluginError


def projection(
    owner: str, channels: int, hidden_dim: int | None, heads: int, *, placed: bool = False
) -> tuple[int, nn.Module]:
    """The width of a plugin's transformer, and the module that projects a map to this width.

    A ``hidden_dim`` of None takes the map as it is. ``placed``: pixels have a position code.

    Raises:
        PluginError: the width cannot be divided by the heads, or by 4 for the position code.
    """
    width = channels if hidden_dim is None else hidden_dim
    if width < 1 or heads < 1 or width % heads or (placed and width % 4):
        raise PluginError(
            f"{owner}: a width of {width} (the map has {channels} channels) must be a multiple of "
            f"{'4 for the position code and of ' if placed else ''}heads={heads}; choose "
            "hidden_dim accordingly"
        )
    return width, nn.Conv2d(channels, width, 1) if hidden_dim else nn.Identity()


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in several subspaces; parameters as ``nn.MultiheadAttention``'s.

    Args:
        channels: D.
        heads: number of subspaces.
        dropout: rate on the attention weights.

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
            query.expand(key.shape[0], -1, -1, -1),
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
        )
        attended_BKD: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return attended_BKD


class AttentionBlock(nn.Module):
    """LN(x + dropout(attention)).

    Args:
        channels, heads, dropout: see ``MultiHeadAttention``; dropout also follows it.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(channels, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, x_BKD: Tensor, query_BKD: Tensor, key_BND: Tensor, value_BND: Tensor
    ) -> Tensor:
        """Attend, add the result to ``x`` [B or 1, K, D], and normalise: [B, K, D]."""
        found_BKD = self.attention(query_BKD, key_BND, value_BND)
        normed_BKD: Tensor = self.norm(x_BKD + self.dropout(found_BKD))
        return normed_BKD


class FeedForwardBlock(nn.Module):
    """LN(x + dropout(W2 dropout(relu(W1 x)))).

    Args:
        channels: width of the input and the output.
        hidden: width in between.
        dropout: rate after both layers.
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


class EncoderLayer(nn.Module):
    """Positions attend to each other.

    Args:
        width, heads, feedforward, dropout: of its blocks.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = AttentionBlock(width, heads, dropout)
        self.feedforward = FeedForwardBlock(width, feedforward, dropout)

    def forward(self, x_BND: Tensor, position_ND: Tensor | float = 0.0) -> Tensor:
        """The map's pixels [B, N, D] and their position codes [N, D], if any, to [B, N, D]."""
        placed_BND = x_BND + position_ND
        encoded_BND: Tensor = self.feedforward(
            self.self_attention(x_BND, placed_BND, placed_BND, x_BND)
        )
        return encoded_BND


class DecoderLayer(nn.Module):
    """Labels attend to each other (if they may), then to the image.

    Args:
        width, heads, feedforward, dropout: of its blocks.
        self_attention: True if labels attend to each other.
    """

    def __init__(
        self, width: int, heads: int, feedforward: int, dropout: float, *, self_attention: bool
    ) -> None:
        super().__init__()
        self.self_attention = AttentionBlock(width, heads, dropout) if self_attention else None
        self.cross_attention = AttentionBlock(width, heads, dropout)
        self.feedforward = FeedForwardBlock(width, feedforward, dropout)

    def forward(self, t_BCD: Tensor, queries_CD: Tensor, key_BND: Tensor, x_BND: Tensor) -> Tensor:
        """Label vectors [B or 1, C, D], queries, placed and plain pixels to [B, C, D]."""
        if self.self_attention is not None:
            placed_BCD = t_BCD + queries_CD
            t_BCD = self.self_attention(t_BCD, placed_BCD, placed_BCD, t_BCD)
        t_BCD = self.cross_attention(t_BCD, t_BCD + queries_CD, key_BND, x_BND)
        decoded_BCD: Tensor = self.feedforward(t_BCD)
        return decoded_BCD


def sine_position(channels: int, height: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of a pixel's row, then of its column: [H*W, D], of the dtype of ``like``.

    Nicolas Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, normalised:
    rows 1..H and columns 1..W become angles up to 2 pi, whatever the size of the map. Sines and
    cosines alternate, with wavelengths in geometric progression from 2 pi to 10000 * 2 pi.

    Args:
        channels: D, a multiple of 4.
        height: H.
        width: W.
        like: gives device and dtype; computed in float32 at least.
    """
    precision = torch.promote_types(like.dtype, torch.float32)
    pairs = torch.arange(channels // 4, device=like.device, dtype=precision)
    frequency = 10000 ** (-4 * pairs / channels)

    def code(size: int) -> Tensor:
        place = torch.arange(1, size + 1, device=like.device, dtype=precision)
        angle = (2 * math.pi / (size + 1e-6)) * place[:, None] * frequency
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)

    rows = code(height)[:, None].expand(-1, width, -1)
    columns = code(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1).to(like.dtype)
