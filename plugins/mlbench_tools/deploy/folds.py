"""Predictions of all training images by models that were not trained on them, in k folds."""

from __future__ import annotations

import numpy as np

from mlbench.api import execute_missing
from mlbench.cli.planning import Prepared, places_of
from mlbench.data.open import open_run
from mlbench.executors import Options
from mlbench.plan import assert_same_files, compare_with_store, identify_files
from mlbench.store import Store
from mlbench.suite import Suite
from mlbench.text import command_line
from mlbench.types import DataError, Places, Predictions, RunRecord, RunSpec, Splits, SuiteError


def predict_folds(record: RunRecord, folds: int, suite: Suite) -> Predictions:
    """Train a run's configuration k times, each time without a k-th of the training images.

    Returns:
        Logits of every training image, from the model that was trained without it, as J. Platt
        recommends in "Probabilistic Outputs for Support Vector Machines", 1999.

    Raises:
        WeightsError, DataError: files or data are not those of the run.
        SuiteError: the run holds images out itself, or a fold cannot be trained.
    """
    if record.spec.holdout:
        raise SuiteError(f"run {record.run_id} held images out; leave out --folds")
    named, files = identify_files(suite)
    assert_same_files(record.spec, named)
    places = places_of(suite, files)
    if open_run(record.spec, places).digest != record.spec.data:
        raise DataError(
            f"the data are not those of run {record.run_id} ({record.identity}); name their folder "
            "with --data DIR"
        )
    parts = [_without(record.spec, fold, folds, places) for fold in range(folds)]
    specs = [spec for spec, _ in parts]
    opened = {spec.run_id: splits for spec, splits in parts}
    planned = compare_with_store(specs, lambda spec: opened[spec.run_id], places, True)
    if planned.refused:
        raise SuiteError(f"a fold cannot be trained: {planned.refused[0].reason}; give fewer folds")
    execute_missing(Prepared(suite, planned, places, Options()), command_line())
    return _join(specs, Store(places.results))


def _without(spec: RunSpec, fold: int, folds: int, places: Places) -> tuple[RunSpec, Splits]:
    """The run that holds one fold out, and its data."""
    settings = spec.settings
    if settings.selection == "test":  # would choose the epoch on the fold
        settings = settings.model_copy(update={"selection": "last"})
    part = {"holdout": 1 / folds, "holdout_fold": fold, "settings": settings, "processes": 1}
    asked = spec.model_copy(update=part)
    splits = open_run(asked, places)
    return asked.model_copy(update={"data": splits.digest}), splits


def _join(specs: list[RunSpec], store: Store) -> Predictions:
    found = []
    for spec in specs:
        record = store.find(spec.run_id)
        if record is None or record.status != "ok":
            raise SuiteError(f"fold {spec.holdout_fold} diverged; see run {spec.run_id}")
        found.append(store.predictions(record))
    return Predictions(
        np.concatenate([one.logits for one in found]),
        np.concatenate([one.targets for one in found]),
        tuple(key for one in found for key in one.keys),
    )
