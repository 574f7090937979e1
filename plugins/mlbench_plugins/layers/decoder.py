"""The decoder of ML-Decoder: queries look at the image, not at each other.

Tal Ridnik, Gilad Sharir, Avi Ben-Cohen, Emanuel Ben-Baruch, Asaf Noy, "ML-Decoder: Scalable and
Versatile Classification Head", WACV 2023, arXiv 2111.12933.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from mlbench.types import PluginError, WeightsError
from mlbench_plugins.layers.options import check_range
from mlbench_plugins.layers.pretrained import renamed
from mlbench_plugins.layers.transformer import AttentionBlock, FeedForwardBlock

MOST_GROUPS = 100
"""Number of queries by default."""


class DecoderSizes(NamedTuple):
    """Width of a decoder's vectors, number of its heads, width of its hidden layer, dropout."""

    width: int
    heads: int
    feedforward: int
    dropout: float


class QueryDecoder(nn.Module):
    """Map [B, D, H, W] and queries [K, E] to one vector a query [B, K, E].

    There is no self-attention, so queries are the same for all images until the cross-attention:
    without dropout, their first norm and projection are computed once a call, not once an image.

    Args:
        channels: D.
        sizes: E is the width.
        activation: applied after the embedding of the pixels.

    Raises:
        PluginError: a size is out of its range.
    """

    def __init__(self, channels: int, sizes: DecoderSizes, activation: nn.Module) -> None:
        super().__init__()
        width, heads, feedforward, dropout = sizes
        check_range("decoder", "[1, inf)", embedding_dim=width, feedforward=feedforward)
        check_range("decoder", "[0, 1)", dropout=dropout)
        self.embed = nn.Linear(channels, width)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.cross_attention = AttentionBlock(width, heads, dropout)
        self.feedforward = FeedForwardBlock(width, feedforward, dropout)

    def forward(self, x_BDHW: Tensor, queries_KE: Tensor) -> Tensor:
        """Return one vector a query: [B, K, E]."""
        x_BNE = self.activation(self.embed(x_BDHW.flatten(2).transpose(1, 2)))
        queries_BKE = queries_KE[None]
        if self.training and self.dropout.p:
            queries_BKE = queries_BKE.expand(x_BNE.shape[0], -1, -1)
        # The authors removed the self-attention but kept its residual sum.
        queries_BKE = self.norm(queries_BKE + self.dropout(queries_BKE))
        found_BKE = self.cross_attention(queries_BKE, queries_BKE, x_BNE, x_BNE)
        decoded_BKE: Tensor = self.feedforward(found_BKE)
        return decoded_BKE


def group_count(groups: int, labels: int) -> int:
    """The number of queries: ``groups``, or 100 for -1, but no more than there are labels.

    Raises:
        PluginError: ``groups`` is neither -1 nor at least 1.
    """
    if groups != -1 and groups < 1:
        raise PluginError(f"groups={groups}: give at least 1, or -1 for {MOST_GROUPS}")
    return min(MOST_GROUPS if groups == -1 else groups, labels)


AUTHORS = {
    "embed_standart": "decoder.embed",
    "layers.0.norm1": "decoder.norm",
    "layers.0.multihead_attn": "decoder.cross_attention.attention",
    "layers.0.norm2": "decoder.cross_attention.norm",
    "layers.0.linear1": "decoder.feedforward.linear1",
    "layers.0.linear2": "decoder.feedforward.linear2",
    "layers.0.norm3": "decoder.feedforward.norm",
    "query_embed.weight": "queries",
    "duplicate_pooling": "classifier.weight",
    "duplicate_pooling_bias": "classifier.bias",
}
"""Names in the authors' checkpoints, under ``decoder.`` or ``head.decoder.`` -> names of a head
that has ``queries``, a ``decoder`` and a ``classifier``."""


def decoder_from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of an authors' state dict under the names used here."""
    places = ("decoder.", "head.decoder.")
    return renamed(state, {at + name: ours for at in places for name, ours in AUTHORS.items()})


def options_of_authors(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the head's options, except ``heads``, from the shapes of an authors' state dict."""
    ours = decoder_from_authors(state)
    return {
        "groups": len(ours["queries"]),
        "embedding_dim": ours["queries"].shape[1],
        "feedforward": len(ours["decoder.feedforward.linear1.bias"]),
    }


def refuse_groups(state: dict[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
    """Return the state as it is if each label has its own query.

    Raises:
        WeightsError: labels share queries, so they cannot be reordered.
    """
    if len(state["queries"]) != len(order):
        raise WeightsError(
            f"{len(order)} labels share {len(state['queries'])} queries in this file, so their "
            "order cannot be changed; use a data set whose labels stand in the file's order"
        )
    return state


RELEASED_AS: dict[str, Any] = {
    "head": decoder_from_authors,
    "options": options_of_authors,
    "label_axes": {"classifier.bias": (0,), "classifier.weight": (0,), "queries": (0,)},
    "rearrange": refuse_groups,
    "averaged": True,
}
"""Fields of ``Released`` for files that hold this decoder."""
