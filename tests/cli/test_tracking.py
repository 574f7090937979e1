"""Trackers hear of a matrix, and what becomes of them concerns no run."""

import pytest

from mlbench.types import Plan
from mlbench_tools.trackers.tensorboard import TensorBoard
from tests.store.made import made_epoch, made_record

FAULTY = """
class Faulty:
    def __init__(self, results):
        pass
    def plan(self, plan):
        pass
    def step(self, *event):
        raise SystemExit("no more room")
    epoch = record = close = step
def unreachable(results):
    raise ConnectionError("no answer")
"""


def test_a_tracker_that_fails_is_reported_once_and_the_runs_go_on(cli, suite, install, store):
    entries = "[mlbench.trackers]\nfaulty = acme:Faulty\nunreachable = acme:unreachable"
    install("acme", FAULTY, entries)
    file = suite({"epochs": 3}, plugins=["gap", "gmp"])
    ended = cli("run", "--suite", file, "--tracker", "faulty,unreachable")
    assert ended.code == 0 and len(store.records()) == 2
    assert ended.err.count("tracker faulty failed") == 1 and "no more room" in ended.err
    assert ended.err.count("tracker unreachable failed and is told nothing more") == 1
    unknown = cli("run", "--suite", file, "--tracker", "tensorbord", "--seeds", "1")
    unknown.failed("did you mean tensorboard?")


def test_tensorboard_gets_losses_speeds_and_scores(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = made_record()
    tracker = TensorBoard(tmp_path)
    tracker.plan(Plan(missing=(record.spec,), done=(), diverged=(), refused=()))
    for step in (1, 2):
        tracker.step(record.spec, step, 0.5 / step, 100.0)
    tracker.epoch(record.spec, made_epoch(1, 0.25))
    tracker.record(record)
    tracker.close()
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name.startswith("ssgrl-resnet18-") and folder.name.endswith(record.run_id[:8])
    read = EventAccumulator(str(folder)).Reload()
    assert [(e.step, e.value) for e in read.Scalars("step/loss")] == [(1, 0.5), (2, 0.25)]
    assert [e.value for e in read.Scalars("epoch/loss")] == [0.25]
    assert [e.value for e in read.Scalars("score/mAP")] == [record.scores.mAP]
