"""What a matrix says of itself while it runs, and what its trackers hear."""

import io
import re
import time

import pytest
from rich.console import Console

from mlbench.cli import progress
from mlbench.executors import Outcome, fail, make_jobs
from mlbench.types import Places, Plan
from mlbench_tools.trackers.tensorboard import TensorBoard
from tests.store.made import made_epoch, made_record
from tests.test_build import matrix


@pytest.fixture
def specs():
    return [spec for epochs in (10, 11, 12) for spec in matrix({"epochs": epochs})]


@pytest.fixture
def fails(specs, tmp_path):
    """The outcome of each run: a failure."""
    places = Places(results=tmp_path / "results", cache=tmp_path / "cache")
    return [fail(job, "error", "no luck\n  a.jpg") for job in make_jobs(specs, places, "")]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.05)


def lines_until(capsys, *parts):
    """What is printed until every part was seen."""
    text, end = "", time.monotonic() + 30
    while not all(part in text for part in parts):
        assert time.monotonic() < end, text
        time.sleep(0.01)
        text += capsys.readouterr().err
    return text


def test_every_phase_is_told_again_and_again(impatient, specs, fails, capsys):
    with progress.Lines() as lines:
        first = lines.begin(1, 3, specs[0])
        first.phase("feature maps of train")
        for done in range(0, 400, 100):
            time.sleep(0.01)
            first.count(done, 1000)
        told = lines_until(capsys, "feature maps of train 30%, 0:00:0")
        assert "0 of 3 runs done, 1 under way\n" in told
        second = lines.begin(2, 3, specs[1])
        second.phase("training")
        second.step(epoch=4, step=5, steps=10, loss=0.5, speed=321.4)
        lines_until(capsys, "[1] feature maps", "[2] training 5/11 41%, 321 images/s")
        second.phase("metrics")  # of which nothing more is told until it ends
        lines_until(capsys, "[2] metrics\n")
        for done in (0, 900):  # a run that outlasts the others tells its own time left
            time.sleep(0.01)
            second.count(done, 1000)
        lines.end(fails[0])
        lines_until(capsys, "1 of 3 runs done, 1 under way, 0:00:0")
        lines.end(fails[1])
        lines.wait("1 run is being carried out by another launcher (ann@host); waiting")
        lines_until(capsys, "(ann@host); waiting: 0:00:0")


def test_files_that_several_runs_cannot_use_are_listed_once(fails, capsys):
    lines = progress.Lines()
    for number, failure in enumerate(fails, 1):
        lines.begin(number, 3, failure.spec)
        lines.end(failure)
    told = capsys.readouterr().err
    assert told.count("FAILED: no luck") == 3 and told.count("a.jpg") == 1


def test_a_run_whose_model_found_no_room_says_so():
    record = made_record("gap", notes=("no checkpoint was kept: No space left on device",))
    line = progress.outcome_line(Outcome(record.spec, None, record))
    assert line.endswith(f" in {sum(record.seconds.values()):.0f} s; {record.notes[0]}")


def test_a_matrix_tells_of_planning_runs_and_what_follows(impatient, cli, suite, install):
    """What follows is a plugin, and a broken one hides no board."""
    source = "def tell(specs, places):\n    print('after', len(specs), places.results)"
    install("acme", source, "[mlbench.follow_ups]\nbroken = acme:gone\ntells = acme:tell")
    ended = cli("run", "--suite", suite({"epochs": 3}, measure=True)).ok("controlled track")
    assert len(re.findall(r"planning: \d:\d\d:\d\d so far", ended.err)) > 1
    assert re.search(r"  (model|training|evaluation|metrics|efficiency)", ended.err)
    assert re.search(r"measure: 0:00:\d\d so far", ended.err)
    assert "follow_up 'broken' of acme 1.0 cannot be imported" in " ".join(ended.err.split())
    assert "after 1 results" in ended.err


def test_the_matrix_has_a_time_left_from_the_end_of_its_first_run(monkeypatch, specs, fails):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr(progress, "errors", console)
    live = progress.Live()
    live.begin(1, 3, specs[0]).phase("metrics")
    assert str(live.pace) == ""
    now[0] = 600.0  # longer than the period of which rich's own estimate knows
    live.end(fails[0])
    slow = live.begin(2, 3, specs[1])
    now[0] = 700.0
    assert str(live.pace) == "0:18:20 left"
    console.print(live.bars.get_renderable())
    assert "0:18:20 left" in screen.getvalue() and "-:--:--" not in screen.getvalue()
    live.begin(3, 3, specs[2])
    assert str(live.pace) == "0:10:00 left", "side by side"
    live.end(Outcome(specs[2], None))  # interrupted: no run that ended
    now[0] = 2000.0
    assert str(live.pace) == "", "the second run takes longer than the mean, nobody knows how long"
    slow.step(epoch=0, step=1, steps=10, loss=0.5, speed=1.0)
    now[0] = 2010.0
    slow.step(epoch=0, step=2, steps=10, loss=0.5, speed=1.0)
    assert str(live.pace) == "0:28:00 left", "0:18:00 of the second, 0:10:00 of the third"


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
