"""The influence of each image on mAP is stored with the predictions, and derived if missing."""

from dataclasses import replace

import numpy as np
import pytest

from mlbench import evidence
from mlbench.metrics.paired import derive_influence
from mlbench.types import StoreError
from tests.boards.scored import write
from tests.store.made import NAMES, kept, made_predictions, made_record, made_scores, with_arrays


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


def test_it_is_derived_if_the_file_has_none_of_this_version(store, monkeypatch):
    record = write(store)
    expected = store.influence(record)
    monkeypatch.setattr(evidence, "INFLUENCE_VERSION", evidence.INFLUENCE_VERSION + 1)
    with evidence.open_arrays(store.predictions_file(record), record) as arrays:
        assert evidence.stored_influence(arrays) is None
    same(store.influence(record), expected)


@pytest.mark.parametrize(
    "changed", [{"influence_mAP": np.array(1.0)}, {"influence": np.zeros(3, np.float32)}]
)
def test_one_that_does_not_fit_the_record_is_an_error(store, changed):
    record = write(store)
    file = store.predictions_file(record)
    file.write_bytes(with_arrays(file.read_bytes(), **changed))
    with pytest.raises(StoreError, match=r"npz.*record beside"):
        store.influence(record)


def test_a_run_without_predictions_or_of_another_score_has_none(store):
    record = write(store)
    for other in ({"scores": made_scores(record.scores.mAP + 0.002)}, {"test_images": 5}):
        assert store.influence(record.model_copy(update=other)) is None
    store.predictions_file(record).unlink()
    assert store.influence(record) is None


def test_a_new_run_and_the_one_it_supersedes_have_their_own(store):
    old = write(store)
    first = store.influence(old)
    new = write(store, noise=8, started="2026-02-01T00:00:00+00:00")
    same(store.influence(old), first)
    assert (store.influence(new).values != first.values).any()


def test_a_result_that_cannot_be_scored_is_kept_without_one(store):
    nothing = replace(made_predictions(), targets=np.zeros((4, 3), np.int8))
    record = kept(store, made_record(), nothing)
    assert store.influence(record) is None
    for changed in (record, record.model_copy(update={"scores": None})):
        assert "influence" not in kept(store, changed, nothing).predictions_sha256
