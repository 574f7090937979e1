"""Label graphs from co-occurrence counts: the variants of the papers, by name.

``conditional``
    P(j | i) with a zero diagonal. SSGRL (Chen et al., ICCV 2019, section 3.3), where messages run
    along it and its transpose; GRL; the graph that ML-GCN starts from (eq. 6).
``binary``
    Edges where P(j | i) reaches a threshold (ML-GCN, Chen et al., CVPR 2019, eq. 7), symmetrically
    normalised, without loops. The graph branch of Prokofiev and Sovrasov (VISAPP 2023) uses it at
    rho 0.
``reweighted``
    The edges of ``binary``, with a loop of weight 1 and one weight that a label's neighbours share
    (ML-GCN, eq. 8), symmetrically normalised. ML-GCN, MSRN, the graph branch.
``row``, ``column``
    P(j | i) with loops, each row or each column summing to 1. ``row``, D^-1 (P + I), averages the
    nodes that a node receives from; ``column``, (P + I) D^-1, divides a node among its receivers.
``symmetric``
    P(j | i) with loops, D^-1/2 (P + I) D^-1/2: Kipf and Welling, "Semi-Supervised Classification
    with Graph Convolutional Networks", ICLR 2017, eq. 2, with D the sums of rows, as P is directed.

Each graph is made from P(j | i) = n_ij / n_i, where n_ij is the number of images with both labels
and n_i a count of label i:

``images``
    The number of images with label i: a conditional probability. All papers here but one use it.
``objects``
    The number of objects of label i in all images, as in the code of Prokofiev and Sovrasov. Labels
    with many objects an image get weaker links. It needs a data set of annotated objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.types import LabelContext, PluginError
from mlbench_plugins.layers.options import check_choice

GRAPHS = ("conditional", "binary", "reweighted", "row", "column", "symmetric")


def label_graph(
    graph: str, probability_CC: Tensor, threshold: float = 0.4, weight: float = 0.25
) -> Tensor:
    """The graph of this name from P(j | i) with a zero diagonal: [C, C].

    Args:
        graph: a name of ``GRAPHS``.
        probability_CC: see ``conditional_probability``.
        threshold: least P(j | i) of an edge, for ``binary`` and ``reweighted``.
        weight: total weight of a label's neighbours, for ``reweighted``.

    Raises:
        PluginError: the graph is unknown.
    """
    check_choice("graph", graph, GRAPHS)
    if graph == "conditional":
        return probability_CC
    if graph == "binary":
        return symmetrically_normalised(_edges(probability_CC, threshold))
    if graph == "reweighted":
        return symmetrically_normalised(reweighted_graph(probability_CC, threshold, weight))
    looped_CC = probability_CC + torch.eye(len(probability_CC), dtype=probability_CC.dtype)
    if graph == "symmetric":
        return symmetrically_normalised(looped_CC).T  # only ML-GCN's code transposes its graphs
    return looped_CC / looped_CC.sum(dim=1 if graph == "row" else 0, keepdim=True)


def conditional_probability(labels: LabelContext, counts: str = "images") -> Tensor:
    """P(j | i) at row i and column j, float32 [C, C], with a zero diagonal.

    A label without a positive has a row of zeros.

    Args:
        labels: their co-occurrence counts are the numerator.
        counts: a name of ``COUNTS``: the denominator.

    Raises:
        PluginError: there is no such count, or the data set does not know it.
        DataError: files that hold it are missing or malformed.
    """
    check_choice("counts", counts, COUNTS)
    together_CC = torch.tensor(labels.cooccurrence, dtype=torch.float32)
    alone_C = torch.tensor(COUNTS[counts](labels), dtype=torch.float32)
    return (together_CC / alone_C.clamp(min=1)[:, None]).fill_diagonal_(0)


def _objects(labels: LabelContext) -> NDArray[Any]:
    try:
        return labels.objects
    except PluginError as error:
        raise PluginError(
            f"{error}: a graph of counts 'objects' cannot be made; use counts 'images', or all "
            "labels of a data set of annotated objects, such as an instances json"
        ) from error


COUNTS: Mapping[str, Callable[[LabelContext], NDArray[Any]]] = {
    "images": lambda labels: labels.positives,
    "objects": _objects,
}
"""Name -> function from the label context to each label's count, [C]."""


def _edges(probability_CC: Tensor, threshold: float) -> Tensor:
    return (probability_CC >= threshold).to(probability_CC.dtype)


def reweighted_graph(probability_CC: Tensor, threshold: float, weight: float = 0.25) -> Tensor:
    """The re-weighted binary graph of ML-GCN before its normalisation: [C, C].

    Chen et al., CVPR 2019, eq. 7 and 8: edges where P(j | i) >= threshold, neighbours that share
    ``weight`` (the code's 0.25 beside a self weight of 1 is the paper's p = 0.2), and loops of
    weight 1. As in the authors' code, neighbours are counted by column.
    """
    edges_CC = _edges(probability_CC, threshold)
    shared_CC = edges_CC * weight / (edges_CC.sum(dim=0) + 1e-6)
    return shared_CC + torch.eye(len(edges_CC), dtype=edges_CC.dtype)


def symmetrically_normalised(adjacency_CC: Tensor) -> Tensor:
    """(A D^-1/2)^T D^-1/2 where D holds the sums of A's rows, or 1 for a row of zeros."""
    degrees_C = adjacency_CC.sum(dim=1)
    scale_C = degrees_C.where(degrees_C > 0, 1).rsqrt()
    return (adjacency_CC * scale_C).T * scale_C
