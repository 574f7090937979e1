"""What a matrix will take, told before it begins, and a budget of time that it keeps."""

import re

import pytest

from mlbench.cli import matrix


@pytest.fixture
def pair(suite):
    return suite({"epochs": 3}, plugins=["gap", "gmp"])


def test_a_dry_run_estimates_by_a_rehearsal_once_and_then_by_records(cli, pair, own, tmp_path):
    asked = ("run", "--suite", pair, "--track", "probe", "--dry-run")
    told = cli(*asked).out
    time = r"time of 2 of 2 missing runs, one after another: 0:0\d:\d\d \(.* to 0:0"
    room = r"memory of a run: \d{3,} MiB; disk: 3 MB of results, 0 MB of feat"
    assert re.search(time, told) and re.search(room, told), told
    assert "2 rehearsals took" in told and "rough for 2 runs" in told
    assert not (tmp_path / "results").exists() and not list(own.glob(".rehearsal*"))
    assert "rehearsals took" not in cli(*asked).out
    cli("run", "--suite", pair, "--track", "probe", "--plugins", "gap,gmp").ok()
    known = cli(*asked, "--seeds", "1").out
    assert "rehearsal" not in known and "rough" not in known
    assert "estimated" not in cli(*asked).out, "nothing is missing"


def test_a_run_that_cannot_be_rehearsed_is_named_and_others_are_estimated(cli, suite, own, install):
    source = "class Head:\n    def __init__(self, spec, labels):\n        raise RuntimeError('no')"
    exits = "import mlbench_plugins.methods.pooling as pooling\nclass Exits(pooling.GAP):\n"
    source = f"{exits}    def forward(self, features):\n        raise SystemExit(0)\n{source}"
    install("acme", source, "[mlbench.heads]\nbroken = acme:Head\nexits = acme:Exits")
    told = cli("run", "--suite", suite(plugins=["gap", "broken", "exits"]), "--dry-run")
    assert "estimated time of 2 of 2 missing runs, " in told.out and "broken" in told.err
    assert "not estimated: exits on" in told.out


def test_a_budget_begins_no_run_that_would_not_fit_and_the_command_goes_on(
    cli, pair, monkeypatch, store
):
    def expected(prepared):
        return {s.run_id: 1e6 for s in prepared.plan.missing if s.method == "gmp"}, []

    monkeypatch.setattr(matrix, "forecast", expected)
    ended = cli("run", "--suite", pair, "--budget", "2h")
    assert ended.code == matrix.EXIT_UNFINISHED == 75
    assert "1 of 2 runs did not fit into the budget; repeat the command" in ended.err
    assert "FAILED" not in ended.err and "gap" in ended.out
    assert [r.spec.method for r in store.records()] == ["gap"]
    cli("run", "--suite", pair).ok()


def test_a_run_in_progress_stops_at_the_end_of_the_budget(cli, suite, monkeypatch, tmp_path):
    monkeypatch.setattr(matrix, "forecast", lambda _: ({}, []))
    ended = cli("run", "--suite", suite({"epochs": 100_000}), "--budget", "3s")
    ended.failed("1 of 1 run did not fit", "not finished; repeat the command to go on", code=75)
    assert not list((tmp_path / "results").glob("records/**/*.json"))
