"""A matrix that is asked to stop goes on where it was, also from a state that was cut short."""

import os

from mlbench.store import Store
from tests.faults.conftest import board


def test_a_stopped_matrix_goes_on_and_a_damaged_state_costs_its_run_only(
    heads, suite, cli, tmp_path, monkeypatch
):
    run = ("run", "--suite", suite({"epochs": 2}, plugins=["stopped"], seeds=[0, 1]), "--jobs", 2)
    results, meeting = tmp_path / "results", tmp_path / "meeting"
    meeting.mkdir()
    monkeypatch.setenv("FAULT_MEETING", str(meeting))
    monkeypatch.setenv("FAULT", str(os.getpid()))
    cli(*run).failed("repeat the command to run the rest", code=143)
    assert not Store(results).records() and not list(results.glob("runs/*/failure.json"))
    whole, cut = sorted(results.glob("runs/*/state.pt"))
    os.truncate(cut, cut.stat().st_size // 2)
    monkeypatch.delenv("FAULT")
    cli(*run).ok()
    notes = {record.run_id: record.notes for record in Store(results).records()}
    assert notes[whole.parent.name][-1] == "resumed after step 3"
    assert notes[cut.parent.name][-1] == "state.pt was damaged and not used"
    assert not list(results.glob("runs/*/state*.pt"))
    cli(*run, "--results", "undisturbed").ok()
    assert board(results) == board(tmp_path / "undisturbed")
