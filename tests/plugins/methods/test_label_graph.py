"""Named label graphs, and ML-GCN on them, against the papers' formulas written as loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from mlbench.contracts.made_up import features, known_context, made_up_context
from mlbench.types import Angles, Level, PluginError
from mlbench_plugins.layers.label_graph import COUNTS, GRAPHS, conditional_probability, label_graph
from mlbench_plugins.methods.graph_branch import GraphBranch
from mlbench_plugins.methods.grl import GRL
from mlbench_plugins.methods.ml_gcn import MLGCN
from mlbench_plugins.methods.ssgrl import SSGRL
from tests.plugins.methods.formulas import assert_follows, macs

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


LEVELS = (Level(4, 16), Level(7, 32))


def precise(labels):
    return replace(labels, embeddings=labels.embeddings.astype(np.float64))


def mlgcn_by_loops(head, x_BDHW):
    """One image and one label at a time."""
    made = head.class_weights
    nodes = list(made.words)
    for layer, slope in ((made.gc1, 0.2), (made.gc2, 1.0)):
        sent = [n @ layer.weight for n in nodes]
        sums = [sum(a * s for a, s in zip(row, sent, strict=True)) for row in made.adjacency]
        nodes = [torch.where(s > 0, s, slope * s) for s in sums]
    rows = [
        [sum(w * x.max() for w, x in zip(node, image, strict=True)) for node in nodes]
        for image in x_BDHW
    ]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize(("count", "threshold", "p"), [(1, 0.4, 0.25), (6, 0.3, 0.25), (9, 0.4, 1)])
def test_forward_and_gradients_are_those_of_the_formulas(count, threshold, p):
    torch.manual_seed(count)
    head = MLGCN(
        LEVELS, precise(made_up_context(count)), threshold=threshold, p=p, width=5
    ).double()
    assert_follows(head, mlgcn_by_loops, torch.randn(2, 7, 2, 3, dtype=torch.float64))


def test_cosine_logits_are_those_of_the_angles():
    head = MLGCN(LEVELS, made_up_context(5), classifier="cosine")
    x = torch.randn(2, 7, 3, 3)
    cosines = functional.cosine_similarity(
        x.amax((2, 3))[:, None], head.class_weights()[None], dim=-1
    )
    torch.testing.assert_close(head((x,)).logits, 23 * cosines)
    head.classifier.angles = Angles(10.0, 2.0)
    torch.testing.assert_close(head((x,)).logits, 10 * (2 * ((cosines + 1) / 2) ** 2 - 1))


def test_angles_stay_precise_under_autocast():
    """bfloat16 class weights turn the angle a little; bfloat16 logits would be steps of 1/8."""
    torch.manual_seed(0)
    head = MLGCN(LEVELS, made_up_context(5), classifier="cosine")
    x = torch.randn(2, 7, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head((x,)).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head((x,)).logits, rtol=0, atol=0.3)


@pytest.mark.parametrize("training", [True, False])
def test_the_classifiers_cost_once_a_batch_in_training_and_nothing_in_evaluation(training):
    head = MLGCN(LEVELS, made_up_context(3, words=12), width=5).train(training)
    found = macs(head, torch.randn(2, 7, 2, 5))
    c, e, k, d, images = 3, 12, 5, 7, 2
    generated = c * c * (k + d) + c * k * (e + d)
    assert found == training * generated + images * c * d
