import pytest

from mlbench.store import Store
from tests.leaderboard.scored import write


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_ranks_are_those_of_paired_differences(cli, store):
    for i, method in enumerate(("gap", "gmp", "msrn")):
        write(store, method, 0.1 if method == "msrn" else 1.5, noise=i)
    ended = cli("leaderboard", "--wins")
    assert ended.code == 0, ended.err
    first = [line.split()[:2] for line in ended.out.splitlines() if "resnet18 bce" in line]
    assert sorted(rank for rank, _ in first) == ["1", "1", "3"] and first[2] == ["3", "msrn"]
    assert "+ better than that row" in ended.out and "--. msrn" in ended.out
    assert "Who beats whom" in (store.root / "leaderboards" / "coco-mini-probe.md").read_text()


def test_what_changed_since_a_day(cli, store):
    write(store, "gap", 1.5, noise=1)
    write(store, "gmp", 1.0, noise=2)
    redone = write(store, "gmp", 1.2, noise=3, started="2026-03-01T00:00:00+00:00")
    write(store, "msrn", 3.0, noise=4, started="2026-03-02T00:00:00+00:00", commit="feedbeef99")
    ended = cli("leaderboard", "--since", "2026-02-01")
    assert ended.code == 0, ended.err
    assert "new: msrn" in ended.out and "scored again: gmp" in ended.out
    assert f"(superseded: {redone.run_id})" in ended.out and "rank 1 -> 2: gap" in ended.out
    assert "nothing changed" in cli("leaderboard", "--since", "feedbee").out
    wrong = cli("leaderboard", "--since", "lately")
    assert wrong.code == 2 and "--since lately" in wrong.err


def test_over_few_data_sets_nothing_is_said(cli, store):
    write(store, "gap")
    ended = cli("leaderboard", "--across")
    assert ended.code == 0 and "nothing can be said over data sets" in ended.out
    assert "1 row stands on the board of the one data set" in ended.out


def test_across_keeps_to_the_boards_that_were_asked_for(cli, store, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "mlbench.leaderboard.across.critical_differences",
        lambda tables: looked.extend(table.identity for table in tables) or [],
    )
    write(store, "gap")
    write(store, "gap", identity="voc2007-mini", spec={"dataset": "voc2007"})
    ended = cli("leaderboard", "--across", "--dataset", "voc2007")
    assert ended.code == 0 and looked == ["voc2007-mini"]
    assert "None of these boards has runs of ours on a whole, known data set" in ended.out


@pytest.mark.parametrize(
    ("when", "message"),
    [("yesterday", "--since yesterday: neither a date"), ("2999-01-01", "lies in the future")],
)
def test_a_wrong_since_prints_and_writes_nothing(cli, store, when, message):
    write(store, "gap")
    ended = cli("leaderboard", "--since", when)
    assert ended.code == 2 and message in ended.err and not ended.out
    assert not (store.root / "leaderboards").exists()


def test_options_that_no_column_shows_stand_below(cli, store):
    write(store, "gap", settings={"head_options": {"prior_bias": True}})
    write(store, "gap", noise=2, settings={"loss": "asl"})
    assert "gap: prior_bias=True (bce)" in cli("leaderboard").out
