"""Named label graphs, against the papers' formulas written as loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlbench.contracts.made_up import features, known_context, made_up_context
from mlbench.types import Level, PluginError
from mlbench_plugins.layers.label_graph import COUNTS, GRAPHS, conditional_probability, label_graph
from mlbench_plugins.methods.graph_branch import GraphBranch
from mlbench_plugins.methods.grl import GRL
from mlbench_plugins.methods.ml_gcn import MLGCN
from mlbench_plugins.methods.ssgrl import SSGRL

SPEC = (Level(8, 32),)
HEADS = {
    MLGCN: ("class_weights.adjacency", {"width": 6}, "reweighted"),
    SSGRL: ("adjacency", {"output_dim": 4, "intermediary_dim": 4}, "conditional"),
    GRL: ("labels.adjacency", {"label_dim": 4, "output_dim": 4}, "conditional"),
    GraphBranch: ("gate.adjacency", {}, "reweighted"),
}
"""Head -> its buffer, small sizes and the graph of its paper."""
THRESHOLD, WEIGHT = 0.3, 0.2


def by_loops(graph, p, threshold, weight):
    """The graph at row i and column j, one entry at a time, in Python's floats."""
    labels = range(len(p))
    edges = [[float(p[i][j] >= threshold) for j in labels] for i in labels]
    if graph == "conditional":
        return p
    if graph in ("binary", "reweighted"):
        a = edges
        if graph == "reweighted":
            degree = [sum(edges[i][j] for i in labels) for j in labels]
            a = [
                [weight * edges[i][j] / (degree[j] + 1e-6) + (i == j) for j in labels]
                for i in labels
            ]
        d = [sum(a[i]) or 1.0 for i in labels]
        return [[a[j][i] / (d[i] ** 0.5 * d[j] ** 0.5) for j in labels] for i in labels]
    a = [[p[i][j] + (i == j) for j in labels] for i in labels]
    rows = [sum(a[i]) for i in labels]
    columns = [sum(a[i][j] for i in labels) for j in labels]
    divisor = {
        "row": lambda i, j: rows[i],
        "column": lambda i, j: columns[j],
        "symmetric": lambda i, j: (rows[i] * rows[j]) ** 0.5,
    }[graph]
    return [[a[i][j] / divisor(i, j) for j in labels] for i in labels]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_named_graphs_are_those_of_the_papers(graph, count):
    probability = conditional_probability(made_up_context(count)).double()
    expected = by_loops(graph, probability.tolist(), THRESHOLD, WEIGHT)
    made = label_graph(graph, probability, THRESHOLD, WEIGHT).numpy()
    assert np.allclose(made, expected, rtol=1e-12, atol=1e-12)
    assert np.isfinite(made).all(), "the last label has no positive"


@pytest.mark.parametrize("counts", COUNTS)
def test_probabilities_are_shares_of_what_is_counted(counts):
    labels = made_up_context(7)
    alone = {"images": labels.positives, "objects": labels.objects}[counts]
    expected = labels.cooccurrence / np.maximum(alone, 1)[:, None]
    np.fill_diagonal(expected, 0)
    made = conditional_probability(labels, counts).numpy()
    assert made.dtype == np.float32 and np.allclose(made, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("counts", COUNTS)
def test_heads_take_any_of_them(head, graph, counts):
    place, options, _ = HEADS[head]
    labels = made_up_context(5)
    made = head(SPEC, labels, graph=graph, counts=counts, **options).eval()
    expected = label_graph(graph, conditional_probability(labels, counts))
    assert torch.equal(made.get_buffer(place), expected)
    assert made(features(SPEC)).logits.isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_the_default_is_the_papers(head):
    place, options, graph = HEADS[head]
    made = head(SPEC, made_up_context(5), **options).get_buffer(place)
    assert torch.equal(made, label_graph(graph, conditional_probability(made_up_context(5))))


@pytest.mark.parametrize("head", HEADS)
def test_without_objects_their_counts_are_refused_and_no_others(head):
    known = made_up_context(3)
    labels = known_context(known.cooccurrence, known.embeddings)
    head(SPEC, labels, **HEADS[head][1])
    with pytest.raises(PluginError, match=r"not annotated.* use counts 'images', or all labels"):
        head(SPEC, labels, counts="objects", **HEADS[head][1])


def test_objects_are_counted_once_and_only_if_asked_for():
    asked = []
    labels = replace(made_up_context(4), count_objects=lambda: asked.append(1) or np.ones(4, int))
    conditional_probability(labels)
    assert not asked
    for _ in range(3):
        conditional_probability(labels, "objects")
    assert asked == [1]
