"""Labels that heads are told: drawn anew in training, hidden from the loss, given in evaluation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mlbench.data.loader import Mixed, draw_known, training_order
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import Evaluator
from mlbench.types import stream
from tests.engine import tiny


class Told(tiny.Head):
    """Adds something for each label that is present, and something else for each that is absent."""

    needs, most_known = frozenset({"known"}), 0.75

    def __init__(self):
        super().__init__()
        self.states = nn.Parameter(torch.tensor([0.5, -0.25]))
        self.seen = []

    def forward(self, features, known=None):
        output = super().forward(features)
        if known is None:
            return output
        self.seen.append(known)
        counts = torch.stack([(known == state).sum(1) for state in (1, 0)], 1).float()
        return output._replace(logits=output.logits + (counts @ self.states)[:, None])


def test_the_number_told_is_uniform_and_any_label_may_be():
    told = draw_known(30_000, 7, 0.75, np.random.default_rng(0))
    counts = np.bincount(told.sum(1), minlength=8) / len(told)
    np.testing.assert_allclose(counts, [1 / 6] * 6 + [0, 0], atol=0.01)  # floor(5.25) at most
    np.testing.assert_allclose(told.mean(0), 2.5 / 7, atol=0.01)
    assert not draw_known(50, 1, 0.75, np.random.default_rng(0)).any()


def test_what_is_told_is_hidden_from_the_loss():
    targets = torch.tensor([[1, 0, -1, 1]], dtype=torch.int8)
    told = torch.tensor([[True, True, True, False]])
    mixed = Mixed(torch.zeros(1), targets).telling(told)
    assert mixed.known.tolist() == [[1, 0, -1, -1]] and mixed.targets.tolist() == [[-1, -1, -1, 1]]
    others = torch.tensor([[0, 0, -1, 1]], dtype=torch.int8)
    both = Mixed(torch.zeros(1), targets, others, 0.5).telling(told).at(slice(0, 1))
    assert both.known.tolist() == [[-1, 0, -1, -1]], "two images that differ in a label"
    assert (both.targets.tolist(), both.others.tolist()) == ([[1, -1, -1, 1]], [[0, -1, -1, 1]])


@pytest.mark.parametrize("probe", [False, True])
def test_training_tells_other_labels_in_each_step(probe):
    made = tiny.model(head=Told)
    training = tiny.training(seed=3)
    if probe:
        made.head.seen.clear()
        maps = [part.detach() for part in made.features(training.source.images)]
        training = replace(
            training,
            probe=True,
            source=lambda rows, _: tuple(m[torch.from_numpy(rows)] for m in maps),
        )
    tiny.fit(training, made)
    order = [*training_order(24, 8, 3, 0), *training_order(24, 8, 3, 1)]
    for i, (rows, known) in enumerate(zip(order, made.head.seen, strict=True)):
        told = draw_known(8, 3, 0.75, stream("known labels", 3, i // 3, i % 3))
        np.testing.assert_array_equal(known, np.where(told, training.index.targets[rows], -1))
    assert len({str(known) for known in made.head.seen}) == 6


def test_evaluation_tells_what_the_index_knows_to_heads_that_take_it():
    training, index = tiny.training(), tiny.index()
    index = replace(index, known=np.where(np.arange(3) < 2, index.targets, -1).astype(np.int8))
    for head, differs in ((Told, True), (tiny.Head, False)):
        made = tiny.model(head=head).eval()
        plain, told = (
            Evaluator(one, training.source, World(), training.device, batch_size=7)(made).logits
            for one in (tiny.index(), index)
        )
        assert (plain != told).any() == differs
        expected = made(training.source.images, torch.from_numpy(index.known)).logits.detach()
        np.testing.assert_allclose(told, expected, rtol=1e-5, atol=1e-6)
