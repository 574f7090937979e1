"""ML-GCN against its formulas written as loops, and what its head promises."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mlbench.contracts.made_up import label_context
from mlbench.types import Angles, LabelContext, Level, PluginError
from mlbench_plugins.methods.ml_gcn import MLGCN

SPEC = (Level(4, 16), Level(7, 32))


def precise(labels):
    return dataclasses.replace(labels, embeddings=labels.embeddings.astype(np.float64))


def graph_by_loops(labels, threshold, p):
    """Equations 6 to 8 and the normalisation, one pair of labels at a time."""
    counts, count = labels.cooccurrence.astype(np.float64), len(labels)
    edge = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            edge[i, j] = i != j and counts[i, i] and counts[i, j] / counts[i, i] >= threshold
    shared = np.eye(count)
    for i in range(count):
        for j in range(count):
            if edge[i, j]:
                shared[i, j] = p / (sum(edge[k, j] for k in range(count)) + 1e-6)
    degree = [sum(row) for row in shared]
    normal = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            normal[j, i] = shared[i, j] / np.sqrt(degree[i] * degree[j])
    return torch.from_numpy(normal)


def classifiers_by_loops(head, adjacency):
    made = head.class_weights
    nodes = list(made.words)
    for layer, slope in ((made.gc1, 0.2), (made.gc2, 1.0)):
        sent = [n @ layer.weight for n in nodes]
        sums = [sum(a * s for a, s in zip(row, sent, strict=True)) for row in adjacency]
        nodes = [torch.where(s > 0, s, slope * s) for s in sums]
    return nodes


@pytest.mark.parametrize(("count", "threshold", "p"), [(1, 0.4, 0.25), (6, 0.3, 0.25), (9, 0.4, 1)])
def test_forward_and_gradients_are_those_of_the_formulas(count, threshold, p):
    torch.manual_seed(count)
    labels = precise(label_context(count))
    head = MLGCN(SPEC, labels, threshold=threshold, p=p, width=5).double()
    adjacency = graph_by_loops(labels, threshold, p)
    torch.testing.assert_close(head.class_weights.adjacency, adjacency, rtol=1e-12, atol=1e-12)
    one = torch.randn(2, 7, 2, 3, dtype=torch.float64, requires_grad=True)
    fast = head((one,)).logits
    classifiers = classifiers_by_loops(head, adjacency)
    slow = torch.stack(
        [
            torch.stack(
                [sum(w * x.max() for w, x in zip(c, image, strict=True)) for c in classifiers]
            )
            for image in one
        ]
    )
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(fast)
    wanted = [one, *head.parameters()]
    for pair in zip(
        torch.autograd.grad((weights * fast).sum(), wanted),
        torch.autograd.grad((weights * slow).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(*pair, rtol=1e-10, atol=1e-12)


def test_the_graphs_of_these_tests_have_edges():
    assert graph_by_loops(label_context(6), 0.3, 0.25).count_nonzero() > 6


def test_labels_permuted_in_the_context_permute_the_logits():
    labels, order = label_context(6), np.array([3, 0, 5, 1, 4, 2])
    permuted = LabelContext(
        tuple(labels.names[i] for i in order),
        labels.cooccurrence[np.ix_(order, order)],
        labels.embeddings[order],
        labels.images,
    )
    head, other = MLGCN(SPEC, labels, threshold=0.3), MLGCN(SPEC, permuted, threshold=0.3)
    other.load_state_dict(dict(head.named_parameters()), strict=False)
    x = torch.randn(2, 7, 3, 3)
    torch.testing.assert_close(other((x,)).logits, head((x,)).logits[:, order])


def test_cosine_logits_are_those_of_the_angles():
    head = MLGCN(SPEC, label_context(5), classifier="cosine")
    x = torch.randn(2, 7, 3, 3)
    cosines = functional.cosine_similarity(
        x.amax((2, 3))[:, None], head.class_weights()[None], dim=-1
    )
    torch.testing.assert_close(head((x,)).logits, 23 * cosines)
    head.classifier.angles = Angles(10.0, 2.0)
    torch.testing.assert_close(head((x,)).logits, 10 * (2 * ((cosines + 1) / 2) ** 2 - 1))


def test_only_cosines_have_angles():
    linear, cosine = (MLGCN(SPEC, label_context(5), classifier=c) for c in ("linear", "cosine"))
    assert not any(hasattr(m, "angles") for m in linear.modules())
    assert [type(m.angles) for m in cosine.modules() if hasattr(m, "angles")] == [Angles]


def test_angles_stay_precise_under_autocast():
    """bfloat16 class weights turn the angle a little; bfloat16 logits would be steps of 1/8."""
    torch.manual_seed(0)
    head = MLGCN(SPEC, label_context(5), classifier="cosine")
    x = torch.randn(2, 7, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head((x,)).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head((x,)).logits, rtol=0, atol=0.3)


@pytest.mark.parametrize("training", [True, False])
def test_the_classifiers_cost_once_a_batch_in_training_and_nothing_in_evaluation(training):
    head = MLGCN(SPEC, label_context(3), width=5).train(training)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head((torch.randn(2, 7, 2, 5),))
    c, e, k, d, images = 3, 12, 5, 7, 2
    generated = c * c * (k + d) + c * k * (e + d)
    assert counter.get_total_flops() == 2 * (training * generated + images * c * d)


def test_evaluation_follows_the_weights_that_are_trained_or_loaded():
    head, other = (MLGCN(SPEC, label_context(4), width=5) for _ in range(2))
    x = (torch.randn(2, 7, 2, 3),)
    before = head.eval()(x).logits
    torch.testing.assert_close(head.train()(x).logits, before)
    with torch.no_grad():
        head.class_weights.gc2.weight *= 2
    torch.testing.assert_close(head.eval()(x).logits, 2 * before)
    head.load_state_dict(other.state_dict())
    assert torch.equal(head(x).logits, other.eval()(x).logits)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 0}, "threshold=0 must lie in"),
        ({"threshold": 1.1}, "threshold=1.1"),
        ({"p": -1}, "p=-1"),
        ({"width": 0}, "width=0"),
        ({"classifier": "conv"}, "no classifier 'conv'; known: linear, cosine"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(PluginError, match=said):
        MLGCN(SPEC, label_context(3), **options)
