"""Predictions on the validation split lie beside those on the test split."""

from dataclasses import replace

import numpy as np
import pytest

from mlbench.store import Store
from mlbench.types import StoreError
from tests.store.made import made_predictions, made_record


def test_both_splits_are_read_as_they_were_written(tmp_path):
    store, record = Store(tmp_path), made_record()
    held = made_predictions(seed=1, n=7)
    store.write(record, replace(made_predictions(), validation=held))
    found = store.predictions(record)
    assert found.keys == made_predictions().keys and found.validation.keys == held.keys
    np.testing.assert_array_equal(found.validation.logits, held.logits)
    np.testing.assert_array_equal(found.validation.targets, held.targets)
    assert found.validation.validation is None


def test_a_file_without_it_is_read(tmp_path):
    store, record = Store(tmp_path), made_record()
    store.write(record, made_predictions())
    assert store.predictions(record).validation is None


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    held = made_predictions(seed=1, n=7)
    bad = replace(made_predictions(), validation=replace(held, keys=held.keys[:2]))
    with pytest.raises(StoreError, match=r"validation_logits \(7, 3\)"):
        Store(tmp_path).write(made_record(), bad)
