"""ML-GCN against its formulas written as loops, and what its head promises."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles, Level
from mlbench_plugins.methods.ml_gcn import MLGCN
from tests.plugins.methods.formulas import assert_follows, macs

SPEC = (Level(4, 16), Level(7, 32))


def precise(labels):
    return dataclasses.replace(labels, embeddings=labels.embeddings.astype(np.float64))


def by_loops(head, x_BDHW):
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
    head = MLGCN(SPEC, precise(made_up_context(count)), threshold=threshold, p=p, width=5).double()
    assert_follows(head, by_loops, torch.randn(2, 7, 2, 3, dtype=torch.float64))


def test_cosine_logits_are_those_of_the_angles():
    head = MLGCN(SPEC, made_up_context(5), classifier="cosine")
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
    head = MLGCN(SPEC, made_up_context(5), classifier="cosine")
    x = torch.randn(2, 7, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head((x,)).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head((x,)).logits, rtol=0, atol=0.3)


@pytest.mark.parametrize("training", [True, False])
def test_the_classifiers_cost_once_a_batch_in_training_and_nothing_in_evaluation(training):
    head = MLGCN(SPEC, made_up_context(3, words=12), width=5).train(training)
    found = macs(head, torch.randn(2, 7, 2, 5))
    c, e, k, d, images = 3, 12, 5, 7, 2
    generated = c * c * (k + d) + c * k * (e + d)
    assert found == training * generated + images * c * d
