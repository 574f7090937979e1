"""`mlbench rescore` scores published weights; their records are a tier."""

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import mlbench
from mlbench.boards.rows import tables
from mlbench.engine.checkpoint import load
from mlbench.engine.evaluation import Evaluator
from mlbench.metrics.bootstrap import score
from mlbench.types import NO_COSTS
from mlbench_plugins.datasets.synthetic import NAMES
from mlbench_tools.scoring import evaluate
from tests.test_one_run import starved
from tests.tools.weights.released import SHUFFLED, change, imported


@pytest.fixture
def theirs(cli, tmp_path):
    return imported(cli, tmp_path)


def test_it_writes_a_record_of_another_tier(cli, theirs, tmp_path, store):
    flags = ("--dataset", "synthetic", "--device", "cpu", "--results", tmp_path / "results")
    assert "recorded in" in cli("rescore", theirs, *flags).ok("mAP").err
    (record,) = store.records()
    assert record.tier == "re-scored" and record.run_id == record.spec.run_id
    assert record.label_names == NAMES and record.test_images == 40
    assert record.efficiency.gmacs_head > 0 and "rescore" in record.command
    seen = store.predictions(record)
    scores, precisions = score(seen.logits, seen.targets)
    assert scores == record.scores
    np.testing.assert_allclose(
        [p for p in precisions if p is not None],
        [p for p in record.average_precision if p is not None],
    )
    (table,) = tables([record])
    assert table.tier == "re-scored" and table.name.endswith("-re-scored-published")
    cli("pack", record.run_id, "--out", "theirs.zip").ok()
    cli("verify", "theirs.zip").ok("0 findings", "settings: its authors trained it")
    assert mlbench.results(tmp_path / "results")["seconds"].isna().all()
    cli("card", theirs, "--out", "card").ok()
    card = Path("card/README.md").read_text()
    assert "trained by its authors on" in card and not re.search("epochs|mlbench thresholds", card)
    cli("rescore", theirs, *flags).ok()
    assert len(store.records()) == 1, "the same weights are the same record"
    weights = {name: value.clone() for name, value in load(theirs).weights.items()}
    next(iter(weights.values())).add_(1)
    change(theirs, weights)
    cli("rescore", theirs, *flags).ok()
    assert len(store.records()) == 2, "other weights are another record"


def test_the_record_started_before_the_images_were_scored(
    cli, theirs, tmp_path, monkeypatch, store
):
    class Clock(datetime):
        hour_now = 1

        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 31, cls.hour_now, tzinfo=tz)

    def slow(*given, **options):
        Clock.hour_now = 2
        return predict(*given, **options)

    predict = Evaluator.predict
    monkeypatch.setattr(evaluate, "datetime", Clock)
    monkeypatch.setattr(Evaluator, "predict", slow)
    flags = ("--dataset", "synthetic", "--device", "cpu", "--results", tmp_path / "results")
    cli("rescore", theirs, *flags).ok()
    (record,) = store.records()
    assert record.started == "2026-01-31T01:00:00+00:00"


def test_scores_are_kept_if_the_costs_do_not_fit_into_memory(cli, theirs, monkeypatch, store):
    monkeypatch.setattr("mlbench.engine.cost.peak_memory", starved)
    cli("rescore", theirs, "--dataset", "synthetic", "--device", "cpu").ok("mAP")
    (record,) = store.records()
    assert record.scores and record.efficiency is None and record.notes[-1] == NO_COSTS


def test_a_checkpoint_of_a_run_is_refused(cli, theirs, tmp_path):
    change(theirs, data="d" * 16)
    flags = ("--dataset", "synthetic", "--results", tmp_path / "results")
    done = cli("rescore", str(theirs.parent)[:-1], *flags)  # as an id of a run, cut short
    assert done.code == 2 and "which has a record" in done.err
    change(theirs, data="imported:" + "d" * 16, labels=tuple(SHUFFLED[:3]))
    cli("rescore", theirs, *flags).failed("only 3 of the labels")
    assert not (tmp_path / "results").exists()
