"""What follows from predictions, and its drawings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbench.metrics.average_precision import average_precision
from mlbench.store import Store
from mlbench.types import Predictions
from mlbench_tools.page.derived import calibration_bins, derive
from mlbench_tools.page.subpages import label_interval, label_lines
from mlbench_tools.scoring.measures import ProtocolInput
from mlbench_tools.scoring.protocols import find
from tests.store.made import made_predictions, made_record


@pytest.fixture
def derived(tmp_path):
    """Predictions -> what follows from them."""

    def found(predictions, **fields):
        record, store = made_record(**fields), Store(tmp_path)
        store.write(record, predictions)
        return derive(store, record, tmp_path / "cache")

    return found


def test_worst_and_best_images(derived):
    """Images that are ranked rightly, rightly and surely, wrongly, and one without a label."""
    made = Predictions(
        logits=np.array([[1, 0, -1], [9, -9, -9], [-1, 0, 1], [0, 0, 0]], np.float32),
        targets=np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, -1]], np.int8),
        keys=("right", "sure", "wrong", "none"),
    )
    found = derived(made)
    assert [image.key for image in found.worst] == ["wrong", "right", "sure"]
    assert [image.key for image in found.best] == ["sure", "right", "wrong"]
    assert (found.worst[0].precision, found.worst[0].present) == (33.33, ("cat",))
    assert found.worst[0].predicted == ("tv | monitor", "dog", "cat")
    assert found.images == 4 and found.positives == (3, 0, 0)


def test_other_predictions_or_training_positives_are_not_taken_from_the_cache(derived):
    first = derived(made_predictions(n=40), train_positives=(120, 7, 3))
    assert derived(made_predictions(1, n=40), train_positives=(120, 7, 3)) != first
    other = derived(made_predictions(n=40), train_positives=(1, 7, 3))
    assert [found.protocols["groups"]["labels_head"] for found in (first, other)] == [1, 0]


def test_a_cache_that_cannot_be_written_costs_only_time(derived, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert derived(made_predictions()).images == len(made_predictions().keys)


def bins(probability, targets):
    logits = np.log(probability / (1 - probability)).astype(np.float32)
    return calibration_bins(find("calibration").measure(ProtocolInput(logits, targets)))


def test_a_calibrated_model_lies_on_the_diagonal_and_an_overconfident_one_below_it():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.02, 0.98, (20_000, 3))
    targets = (rng.random(truth.shape) < truth).astype(np.int8)
    honest = bins(truth, targets)
    assert len(honest) == 15 and sum(one.entries for one in honest) == truth.size
    assert all(abs(one.confidence - one.frequency) < 5 for one in honest)
    sure = bins(np.clip(truth * 1.5, 0.01, 0.99), targets)
    assert all(one.frequency < one.confidence for one in sure if one.confidence > 40)


def test_an_empty_bin_is_left_out():
    found = bins(np.array([[0.05]] * 90 + [[0.95]] * 10), np.array([[0]] * 90 + [[1]] * 10))
    assert [(one.entries, one.frequency) for one in found] == [(90, 0), (10, 100)]
    assert (found[0].low, found[1].high) == (0, 100)


def test_the_weakest_label_comes_first_with_its_positives():
    record = made_record(average_precision=(50.0, 40.0, None), train_positives=(9, 8, 7))
    found = label_lines(record, (4, 40, 0))
    assert [(line.name, line.ap, line.tested, line.trained) for line in found] == [
        ("dog", 40.0, 40, 8),
        ("cat", 50.0, 4, 9),
    ]
    assert label_lines(record, ())[0].low is None


@given(st.floats(0, 100), st.integers(1, 1000))
def test_an_interval_of_a_label_holds_its_score_and_shrinks_with_positives(ap, positives):
    low, high = label_interval(ap, positives)
    more = label_interval(ap, positives + 1)
    assert 0 <= low <= ap + 1e-9 and ap - 1e-9 <= high <= 100
    assert high - low > more[1] - more[0] > 0, "not even 100 % is sure"


@pytest.mark.parametrize(("positives", "separation"), [(4, 4.0), (10, 2.5), (30, 1.5), (100, 2.5)])
def test_an_interval_of_a_label_covers_what_it_says(positives, separation):
    """Normal scores; the truth is the precision over a large draw of the same prevalence."""
    rng, images = np.random.default_rng(0), 900

    def drawn(times):
        targets = np.zeros(images * times, np.int8)
        targets[: positives * times] = 1
        scores = rng.standard_normal(len(targets)) + separation * targets
        found = average_precision(scores[:, None].astype(np.float32), targets[:, None])
        return 100 * float(found[0])

    truth = drawn(200)
    bounds = [label_interval(drawn(1), positives) for _ in range(300)]
    assert np.mean([low <= truth <= high for low, high in bounds]) > 0.9
