"""The epoch that is scored is the best of those looked at; what heads are told of the labels."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from mlbench.data.loader import Mixed, draw_known, training_order
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import Evaluator
from mlbench.engine.train import finish, train
from mlbench.types import BatchMemoryError, Predictions, stream
from tests.engine import tiny
from tests.engine.tiny import fit


def validation(seed=5, images=12):
    """A split that training does not see."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 3, 16, 16), dtype=torch.uint8, generator=generator)
    index = tiny.index(images)
    index.targets[:, 2] = 0  # without an AP
    return Evaluator(index, tiny.Pixels(pixels), World(), torch.device("cpu"))


@pytest.mark.parametrize("ema_decay", [0.0, 0.7])
def test_the_model_ends_with_the_weights_of_its_best_epoch(ema_decay):
    given = tiny.settings(epochs=6, ema_decay=ema_decay, optimizer={"name": "adamw", "lr": 0.05})
    evaluator, seen = validation(), []

    class Watching(tiny.Quiet):
        def epoch(self, log):
            seen.append(copy.deepcopy(state.evaluated().state_dict()))

    training = tiny.training(given, evaluator=evaluator, progress=Watching())
    state = training.start(tiny.model())
    finish(train(state, training))
    by_epoch = [entry.mAP for entry in state.log]
    assert len({round(value, 6) for value in by_epoch}) > 1, "every epoch is as good"
    best = int(np.argmax(by_epoch))
    assert (state.best.epoch, state.best.mAP) == (best + 1, by_epoch[best])
    for name, value in state.evaluated().state_dict().items():
        assert torch.equal(value, seen[best][name]), name
    assert not any(module.training for module in state.evaluated().modules())
    again = evaluator(state.evaluated())
    np.testing.assert_array_equal(again.logits, state.best.predictions.logits)
    reference = average_precision_score(evaluator.index.targets[:, :2], again.logits[:, :2])
    assert 100 * reference == pytest.approx(state.best.mAP)


@pytest.mark.parametrize(("most", "size"), [(11, 6), (2, 1), (0, 0)])
def test_batches_that_do_not_fit_are_halved_and_this_is_remarked(most, size):
    said, seen, evaluator, model = [], [], validation(images=24), tiny.model().eval()

    def network(images):
        seen.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError
        return model(images)

    asked = replace(evaluator, batch_size=12, remark=said.append)
    if not most:
        with pytest.raises(BatchMemoryError, match="a single image; give a smaller --image-size"):
            asked.predict(network)
        return
    found = asked.predict(network)
    np.testing.assert_allclose(found.logits, evaluator(model).logits, atol=1e-6)
    assert sum(n for n in seen if n <= most) == 24 and size in seen and seen.count(12) == 1
    assert len(said) == 1 and said[0].startswith(f"predicted in batches of {size} for want of")


def test_looking_changes_no_step():
    alone = fit(tiny.training(tiny.settings(epochs=3)))
    looked = fit(tiny.training(tiny.settings(epochs=3), evaluator=validation()))
    assert alone.losses == looked.losses and alone.best is None
    assert [entry.mAP for entry in alone.log] == [None] * 3


class Sequence(Evaluator):
    """Predictions of a given quality, one an epoch."""

    def __call__(self, model):
        value = qualities.pop(0)
        targets = self.index.targets
        logits = np.where(targets == 1, value, 0.5).astype(np.float32)
        return Predictions(logits, targets, tuple(self.index.keys))


qualities = []


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([0.4, 0.6, 0.3], 2),  # above and below what the absent labels have
        ([0.6, 0.7, 0.8], 1),  # equally good: the first
        ([np.nan, 0.4, np.inf], 2),  # what is not finite is never the best
        ([np.nan, np.nan, np.nan], None),
    ],
)
def test_of_equals_the_first_and_never_one_that_is_not_finite(values, best):
    qualities[:] = values
    good = validation()
    evaluator = Sequence(good.index, good.source, good.world, good.device)
    state = fit(tiny.training(tiny.settings(epochs=3), evaluator=evaluator))
    assert (None if state.best is None else state.best.epoch) == best
    finite = [np.isfinite(value) for value in values]
    assert [entry.mAP is not None for entry in state.log] == finite


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
