"""The influence of each image on mAP is stored with the predictions, and derived if missing."""

from dataclasses import replace

import numpy as np
import pytest

from mlbench.metrics.paired import derive_influence
from mlbench.store import INFLUENCE_VERSION, Store
from tests.boards.scored import write
from tests.store.made import NAMES, made_predictions, made_record


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def arrays_of(store, record):
    with np.load(store.predictions_file(record)) as arrays:
        return dict(arrays)


def rewritten(store, record, **changed):
    """The predictions file with other members; those that are None are left out."""
    held = {**arrays_of(store, record), **changed}
    kept = {name: array for name, array in held.items() if array is not None}
    np.savez(store.predictions_file(record), **kept)


def same(one, other):
    assert (one.images, one.mAP) == (other.images, other.mAP)
    np.testing.assert_array_equal(one.values, other.values)


def test_the_order_of_images_does_not_matter(store):
    predictions = store.predictions(write(store))
    order = np.random.default_rng(0).permutation(len(predictions.keys))
    keys = tuple(predictions.keys[i] for i in order)
    moved = replace(
        predictions, logits=predictions.logits[order], targets=predictions.targets[order], keys=keys
    )
    one, other = derive_influence(predictions, NAMES), derive_influence(moved, NAMES)
    assert one.images == other.images
    np.testing.assert_allclose(one.values, other.values, rtol=1e-5, atol=1e-7)
    flipped = np.where(np.arange(3) == 1, 1 - moved.targets, moved.targets).astype(np.int8)
    assert derive_influence(replace(moved, targets=flipped), NAMES).images != one.images
    assert derive_influence(moved, ("a", "b", "c")).images != one.images


NONE = dict.fromkeys(("influence", "influence_of", "influence_mAP", "influence_version"))
OTHERS = {
    "older file": NONE,
    "version": {"influence_version": np.array(INFLUENCE_VERSION + 1)},
    "score": {"influence_mAP": np.array(1.0)},
    "images": {"influence": np.zeros(3, np.float32)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_it_is_derived_if_what_is_stored_does_not_fit(store, name):
    record = write(store)
    expected = store.influence(record)
    logits = store.predictions(record).logits
    rewritten(store, record, **OTHERS[name])
    same(store.influence(record), expected)
    np.testing.assert_array_equal(store.predictions(record).logits, logits)


def test_what_is_stored_is_trusted_if_it_fits(store):
    """So a board trusts it, and `mlbench verify` must not."""
    record = write(store)
    half = replace(store.influence(record), values=store.influence(record).values / 2)
    rewritten(store, record, influence=half.values)
    same(store.influence(record), half)


@pytest.mark.parametrize("broken", ["missing", "cut", "half"])
def test_there_is_none_without_usable_predictions(store, broken):
    record = write(store)
    file = store.predictions_file(record)
    if broken == "missing":
        file.unlink()
    elif broken == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        rewritten(store, record, influence_of=None)
    assert store.influence(record) is None


def test_a_new_run_and_the_one_it_supersedes_have_their_own(store):
    old = write(store)
    first = store.influence(old)
    new = write(store, noise=8, started="2026-02-01T00:00:00+00:00")
    same(store.influence(old), first)
    assert (store.influence(new).values != first.values).any()


def test_a_result_that_cannot_be_scored_is_kept_without_one(store):
    nothing = replace(made_predictions(), targets=np.zeros((4, 3), np.int8))
    record = made_record()
    store.write(record, nothing)
    assert "influence" not in arrays_of(store, record) and store.influence(record) is None
    store.write(record.model_copy(update={"scores": None}), made_predictions())
    assert "influence" not in arrays_of(store, record)
