"""Validation splits and chosen epochs, from the command line to the board."""

import hashlib

import numpy as np
import pytest

from mlbench.boards.rows import tables
from mlbench.metrics.average_precision import average_precision
from mlbench.store import Store

SIZES = {"train_images": 120, "test_images": 31, "size": 32}
OPTIONS = [part for name, size in SIZES.items() for part in ("--option", f"{name}={size}")]


@pytest.fixture
def small(suite):
    return suite(
        {"weights": "none", "epochs": 3, "batch_size": 12},
        backbones=["timm:test_resnet"],
        dataset_options={"synthetic": SIZES},
    )


def mean_ap(predictions):
    return 100 * np.nanmean(average_precision(predictions.logits, predictions.targets))


@pytest.mark.parametrize("track", ["controlled", "probe"])
def test_the_best_epoch_on_held_out_images_is_scored(cli, small, store, track):
    ended = cli("run", "--suite", small, "--set", "selection=validation", "--track", track).ok()
    (record,) = store.records()
    curve = [entry.mAP for entry in record.epochs]
    assert record.selected_epoch == 1 + int(np.argmax(curve)) and f"mAP {curve[0]:.2f}" in ended.err
    assert record.train_images + record.validation_images == 120
    assert 15 <= record.validation_images <= 30
    predictions = store.predictions(record)
    assert len(predictions.validation.keys) == record.validation_images
    assert mean_ap(predictions.validation) == pytest.approx(max(curve))
    assert mean_ap(predictions) == pytest.approx(record.scores.mAP)
    assert all(key.startswith("train-") for key in predictions.validation.keys)
    assert record.coverage.splits["train"].images == 120 and record.coverage.complete
    assert not any("test split" in note for note in record.notes)
    listed = cli("data", "split", "synthetic", "--json", *OPTIONS).json
    assert sorted(predictions.validation.keys) == listed["keys"]


def test_selection_changes_the_run_and_not_the_board(cli, small, store):
    cli("run", "--suite", small).ok()
    cli("run", "--suite", small, "--set", "selection=validation").ok()
    records = store.records()
    assert len({record.run_id for record in records}) == 2
    (table,) = tables(records)
    assert len(table.rows) == 2
    assert {row.variant for row in table.rows} == {"selection=last", "selection=validation"}
    (last,) = [r for r in records if r.spec.settings.selection == "last"]
    assert last.selected_epoch is None and last.epochs[0].mAP is None
    assert "selection" not in last.spec.model_dump_json(exclude_defaults=True)


def test_two_processes_choose_the_same_epoch(cli, small, tmp_path):
    arguments = ["--suite", small, "--set", "selection=validation", "--device", "cpu"]
    cli("run", *arguments, "--results", tmp_path / "one").ok()
    cli("run", *arguments, "--gpus", 2, "--results", tmp_path / "two").ok()
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    (record,), (other,) = one.records(), two.records()
    assert other.spec == record.spec.model_copy(update={"processes": 2})
    assert other.selected_epoch == record.selected_epoch
    curves = [[entry.mAP for entry in r.epochs] for r in (record, other)]
    np.testing.assert_allclose(*curves, atol=0.1)  # a tie may fall either way
    found = [one.predictions(record), two.predictions(other)]
    for one, another in (found, [p.validation for p in found]):
        assert one.keys == another.keys
        np.testing.assert_allclose(one.logits, another.logits, atol=1e-4)


def test_choosing_on_the_test_split_is_for_the_published_track_and_is_said(cli, small, store):
    cli("run", "--suite", small, "--set", "selection=test").failed("--track published")
    arguments = ("--track", "published", "--weights", "none", "--set", "selection=test")
    cli("run", "--suite", small, *arguments).ok()
    (record,) = store.records()
    assert record.scores.mAP == pytest.approx(max(entry.mAP for entry in record.epochs))
    assert record.train_images == 120 and record.validation_images == 0
    (note,) = [note for note in record.notes if "selected on the test split" in note]
    assert note.startswith(f"epoch {record.selected_epoch} of 3")
    assert store.predictions(record).validation is None


def test_the_published_list_is_written_and_known(cli, tmp_path):
    file = tmp_path / "list" / "keys.txt"
    said = cli("data", "split", "synthetic", "--out", file, "--json").ok().json
    written = file.read_bytes()
    assert said["sha256"] == hashlib.sha256(written).hexdigest() and said["published"]
    keys = written.decode().splitlines()
    assert keys == sorted(keys) and len(keys) == said["validation"]
    assert said["train"] + said["validation"] == 1200 and "keys" not in said
    assert "the published list" in cli("data", "split", "synthetic").out
    assert "of no published list" in cli("data", "split", "synthetic", *OPTIONS).out
