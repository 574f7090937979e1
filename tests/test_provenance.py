"""What a record says of the code, the machine and the phases of its run."""

import mmap
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mlbench import provenance
from tests.engine import tiny
from tests.store.made import made_record
from tests.test_one_run import run_one

__all__ = ["run_one"]


CODE = ("mlbench/provenance.py", "plugins/head.py", "pyproject.toml")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository of the code, as far as `commit` looks at it."""

    def git(*arguments):
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    for name in (*CODE, "results/records/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as committed")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "mlbench" / "provenance.py"))
    assert provenance.commit() is None
    git("init", "-q")
    assert provenance.commit() is None, "nothing is committed"
    git("add", ".")
    git("commit", "-qm", "all")
    return tmp_path


def test_a_commit_is_dirty_if_tracked_code_changed_and_not_by_results_or_new_files(
    checkout, monkeypatch
):
    clean = provenance.commit()
    assert len(clean) == 40
    (checkout / "results/records/a.json").write_text("another")
    (checkout / "results/records/b.json").write_text("new")
    (checkout / "plugins/notes.txt").write_text("new")
    assert provenance.commit() == clean
    for name in CODE:
        (checkout / name).write_text("another")
        assert provenance.commit() == f"{clean}-dirty"
        (checkout / name).write_text("as committed")
    (checkout / ".git").rename(checkout / "other")
    (checkout / ".git").write_text("gitdir: other")  # as in a work tree
    assert provenance.commit() == clean
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None, "git is not installed"


@pytest.mark.parametrize(
    ("track", "lr", "named"),
    [("probe", 3e-3, True), ("probe", 1e-3, False), ("controlled", 3e-3, False)],
)
def test_a_rate_is_the_recipes_if_it_names_it_for_the_track(track, lr, named):
    spec = made_record("gap", spec={"track": track}, settings={"optimizer": {"lr": lr}}).spec
    assert provenance.origin(spec)["recipe_rate"] == named


def test_a_record_tells_code_machine_and_what_each_phase_took(run_one, monkeypatch):
    commits = iter(["1" * 40])  # of the code as the run began, so it is asked for once
    monkeypatch.setattr(provenance, "commit", lambda: next(commits))
    record, *_ = run_one(epochs=1, augmentation=[], track="probe")
    assert record.commit == "1" * 40
    assert record.environment["load"] >= 0
    assert record.environment["threads"] == torch.get_num_threads()
    assert record.environment["plugins"]["recipe gap"].startswith("mlbench-mlic ")
    assert "driver" not in record.environment
    assert {"data", "features", "training", "evaluation"} < set(record.resources)
    assert set(record.resources) == set(record.seconds)
    for took in record.resources.values():
        assert (took.device_memory_mb, took.joules) == (None, None)
        assert (took.memory_mb or 0) > 50 * (sys.platform == "linux")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a phase needs /proc")
def test_the_memory_of_a_phase_is_its_own():
    phase = provenance.Phases(torch.device("cpu"), tiny.Quiet())
    with phase("large"), mmap.mmap(-1, 2**28) as fresh:  # malloc may give memory that it kept
        np.frombuffer(fresh, np.uint8).copy()
    with phase("small"):
        pass
    assert phase.resources["large"].memory_mb > phase.resources["small"].memory_mb + 200


class _Library:
    """NVIDIA's library, of a device that takes 2.5 J between two looks."""

    taken = 7_000

    def nvmlSystemGetDriverVersion(self, text, length):  # noqa: N802
        text.value = b"570.1"
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):  # noqa: N802
        return int(uuid != b"GPU-here")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, value):  # noqa: N802
        self.taken += 2_500
        value._obj.value = self.taken
        return 0


@pytest.mark.parametrize(("uuid", "joules"), [("here", 2.5), ("a part of it", None)])
def test_energy_is_what_the_device_counts_or_unknown(monkeypatch, uuid, joules):
    library = _Library()
    monkeypatch.setattr(provenance, "_nvml", lambda: library)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    peaks = [9 * 2**20]
    for name, value in {
        "get_device_properties": lambda _: SimpleNamespace(uuid=uuid),
        "reset_peak_memory_stats": lambda _: peaks.append(3 * 2**20),
        "max_memory_allocated": lambda _: peaks[-1],
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    beside = provenance.Phases(torch.device("cuda"), tiny.Quiet(), alone=False)
    with beside("training"):
        peaks.append(5 * 2**20)
    assert beside.resources["training"].device_memory_mb is None
    phase = provenance.Phases(torch.device("cuda"), tiny.Quiet())
    with phase("training", spent=2000, away=lambda: 1000):
        pass
    assert provenance.driver() == "570.1"
    took = phase.resources["training"]
    assert (took.joules, took.device_memory_mb) == (joules, 3)
    assert 1000 <= phase.seconds["training"] < 2000


def test_the_share_of_a_moving_average_is_that_at_the_selected_epoch():
    settings = made_record("gap", settings={"ema_decay": 0.9, "batch_size": 4}).spec.settings
    (said,) = provenance.remarks_on_epoch(settings, selected=1, trained=9, images=12)
    assert said.startswith("81% of the moving average")
    assert not [*provenance.remarks_on_epoch(settings, None, trained=20, images=12)]


@pytest.mark.gpu
def test_a_record_of_a_gpu_tells_driver_memory_and_energy(run_one):
    record, *_ = run_one(epochs=1, places={"device": "cuda"})
    assert record.environment["driver"].partition(".")[0].isdigit()
    took = record.resources["training"]
    assert took.device_memory_mb > 40, "a ResNet-18 alone is that large"
    assert took.joules is None or took.joules >= 0


def test_a_phase_beside_other_runs_tells_no_memory(run_one):
    """Their phases start the peaks of the process anew."""
    record, *_ = run_one(epochs=1, neighbours=2)
    assert {took.memory_mb for took in record.resources.values()} == {None}
    assert "memory cannot be told apart" in record.notes[0]
