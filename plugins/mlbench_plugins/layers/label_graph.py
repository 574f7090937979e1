"""Label graphs from co-occurrence counts."""

from __future__ import annotations

import torch
from torch import Tensor

from mlbench.types import LabelContext


def conditional_probability(labels: LabelContext) -> Tensor:
    """P(j | i) at row i and column j, float32 [C, C], with a zero diagonal.

    A label without a positive has a row of zeros.
    """
    counts_CC = torch.tensor(labels.cooccurrence, dtype=torch.float32)
    probability_CC = counts_CC / counts_CC.diagonal().clamp(min=1)[:, None]
    return probability_CC.fill_diagonal_(0)


def reweighted_adjacency(probability_CC: Tensor, threshold: float, weight: float = 0.25) -> Tensor:
    """``reweighted_graph``, symmetrically normalised as D^-1/2 A D^-1/2 and transposed: [C, C]."""
    return symmetrically_normalised(reweighted_graph(probability_CC, threshold, weight))


def reweighted_graph(probability_CC: Tensor, threshold: float, weight: float = 0.25) -> Tensor:
    """The re-weighted binary graph of ML-GCN: [C, C].

    Chen et al., CVPR 2019, eq. 7 and 8: edges where P(j | i) >= threshold, neighbours that share
    ``weight`` (the code's 0.25 beside a self weight of 1 is the paper's p = 0.2), and loops of
    weight 1. As in the authors' code neighbours are counted by column.
    """
    edges_CC = (probability_CC >= threshold).to(probability_CC.dtype)
    shared_CC = edges_CC * weight / (edges_CC.sum(dim=0) + 1e-6)
    return shared_CC + torch.eye(len(edges_CC), dtype=edges_CC.dtype)


def binary_adjacency(probability_CC: Tensor, threshold: float) -> Tensor:
    """The symmetrically normalised graph of the edges alone, without loops: [C, C].

    Edges are where P(j | i) >= threshold; the result is transposed, as that of
    ``reweighted_adjacency``. A label without an edge of its own has degree 1.
    """
    edges_CC = (probability_CC >= threshold).to(probability_CC.dtype)
    return symmetrically_normalised(edges_CC)


def symmetrically_normalised(adjacency_CC: Tensor) -> Tensor:
    """(A D^-1/2)^T D^-1/2 where D holds the sums of A's rows, or 1 for a row of zeros."""
    degrees_C = adjacency_CC.sum(dim=1)
    scale_C = degrees_C.where(degrees_C > 0, 1).rsqrt()
    return (adjacency_CC * scale_C).T * scale_C
