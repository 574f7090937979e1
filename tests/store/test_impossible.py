"""A record that cannot be is named with its file and field, and costs no other its place."""

import json

import pytest

from mlbench.store import Store
from mlbench.types import RunRecord
from tests.store.made import made_predictions, made_record


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "results")
    for seed in range(3):
        made.write(made_record(spec={"seed": seed}), made_predictions())
    return made


def edited(store, *path, value):
    """One number of a record on the disk, as a person might set it."""
    file = store.file(made_record())
    whole = json.loads(file.read_text())
    *above, last = path
    part = whole
    for name in above:
        part = part[name]
    part[last] = value
    file.write_text(json.dumps(whole))
    return file


IMPOSSIBLE = [
    (("scores", "mAP"), float("nan")),
    (("scores", "mAP"), "NaN"),
    (("scores", "mAP"), 147.0),
    (("scores", "top3_OF1"), -0.1),
    (("scores", "mAP_low"), float("-inf")),
    (("scores", "classes_scored"), -1),
    (("average_precision", 0), 100.1),
    (("efficiency", "gmacs_head"), -1.0),
    (("efficiency", "gmacs_backbone"), float("inf")),
    (("efficiency", "parameters_head"), -1),
    (("efficiency", "peak_memory_mb"), float("nan")),
    (("efficiency", "latency", 0, "median_ms"), -1.0),
    (("efficiency", "latency", 1, "images_per_second"), float("inf")),
    (("seconds", "training"), -5.0),
    (("train_images",), -1),
    (("test_images",), -1),
    (("train_positives",), [-1, 0, 0]),
    (("started",), "yesterday"),
    (("added",), "lately"),
    (
        ("epochs",),
        [{"epoch": 1, "loss": 1.0, "lr": 0.1, "seconds": -5.0, "images_per_second": 1.0}],
    ),
]


@pytest.mark.parametrize(("path", "value"), IMPOSSIBLE)
def test_what_cannot_be_is_a_problem_of_its_file(store, path, value):
    file = edited(store, *path, value=value)
    again = Store(store.root)
    [problem] = again.problems()
    assert str(file) in str(problem) and str(path[0]) in str(problem)
    assert len(again.records()) == 2


def test_an_interval_may_reach_beyond_what_a_score_can_be(store):
    edited(store, "scores", "mAP_high", value=100.4)
    assert store.problems() == [] and len(store.records()) == 3


def test_the_boards_stay_and_the_file_is_named(cli, store):
    file = edited(store, "scores", "mAP", value=float("nan"))
    told = cli("leaderboard")
    assert told.code == 0 and "ssgrl" in told.out
    said = "".join(told.err.split())
    assert f"notontheboard:{file.relative_to(store.root.parent)}" in said
    assert "scores.mAP=nan:Inputshouldbeafinitenumber" in said


# ------------------------------------------------------------------------------------- label names
def test_other_label_names_than_those_of_the_data_are_not_on_the_board(store):
    file = edited(store, "label_names", 1, value="wolf")
    again = Store(store.root)
    [problem] = again.problems()
    assert str(file) in str(problem)
    assert "'wolf' in column 1, and 'dog' stands there in 2 of the records" in str(problem)
    assert made_record() not in again.records() and len(again.records()) == 2


def test_fewer_label_names_are_told_apart_too(store):
    edited(store, "label_names", value=["cat", "dog"])
    [problem] = Store(store.root).problems()
    assert "has None in column 2" in str(problem)


def test_other_data_may_have_other_label_names(store):
    other = made_record(identity="voc2007", spec={"data": "e" * 16}, label_names=("a", "b", "c"))
    store.write(other)
    assert store.problems() == [] and len(store.records()) == 4


def test_of_equally_many_the_earliest_counts(tmp_path):
    store = Store(tmp_path / "results")
    first = made_record(spec={"seed": 5})
    later = made_record(started="2026-02-02T00:00:00+00:00", label_names=("a", "b", "c"))
    store.write(later)
    store.write(first)
    assert store.records() == [first]
    added = RunRecord.model_validate({**later.model_dump(), "started": "2025-01-01T00:00:00Z"})
    store.write(added.model_copy(update={"added": "2026-03-03T00:00:00Z"}))
    assert store.records() == [first]


def test_runs_without_usable_predictions_are_named(cli, store):
    for seed in range(3):
        store.predictions_file(made_record(spec={"seed": seed})).unlink()
    told = cli("leaderboard")
    said = "".join(told.err.split())
    for record in store.records():
        assert f"run{record.run_id}hasnousablepredictions:" in said


@pytest.mark.parametrize("content", [b"junk", b"", b"PK\3\4", b"\x80\x04K\x01."])
def test_nobody_is_advised_to_load_a_file_unsafely(cli, store, tmp_path, content):
    (tmp_path / "junk.npz").write_bytes(content)
    given = cli("score", "junk.npz")
    assert given.code == 2 and "junk.npz: damaged or no .npz (" in given.err
    record = made_record()
    store.predictions_file(record).write_bytes(content)
    kept = cli("score", record.run_id)
    assert kept.code == 2 and "damaged predictions (" in kept.err
    assert "pickle" not in given.err + kept.err and "unsafe" not in given.err + kept.err
