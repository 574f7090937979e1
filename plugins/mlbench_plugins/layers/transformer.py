"""Layers of a transformer that reads a feature map, with position codes added to what is compared.

Nicolas Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, appendix A.3.
"""

from __future__ import annotations

from torch import Tensor, nn

from mlbench_plugins.layers.attention import AttentionBlock, FeedForwardBlock


class EncoderLayer(nn.Module):
    """Positions attend to each other.

    Args:
        width, heads, feedforward, dropout: of its blocks.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = AttentionBlock(width, heads, dropout)
        self.feedforward = FeedForwardBlock(width, feedforward, dropout)

    def forward(self, x_BND: Tensor, position_ND: Tensor) -> Tensor:
        """The map's pixels [B, N, D] and their position codes [N, D] to [B, N, D]."""
        placed_BND = x_BND + position_ND
        encoded_BND: Tensor = self.feedforward(
            self.self_attention(x_BND, placed_BND, placed_BND, x_BND)
        )
        return encoded_BND


class DecoderLayer(nn.Module):
    """Labels attend to each other (if they may), then to the image.

    Args:
        width, heads, feedforward, dropout: of its blocks.
        self_attention: whether labels attend to each other.
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
