import pytest

import mlbench.cli.boards
import mlbench.store.store
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
    tied = "1\N{EN DASH}2"
    assert [rank for rank, _ in first] == [tied, tied, "3"] and first[2] == ["3", "msrn"]
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
        lambda tables, cards: looked.extend(table.identity for table in tables) or [],
    )
    write(store, "gap")
    write(store, "gap", identity="voc2007-mini", spec={"dataset": "voc2007"})
    ended = cli("leaderboard", "--across", "--dataset", "voc2007")
    assert ended.code == 0 and looked == ["voc2007-mini"]
    assert "None of these boards has runs of ours on a whole, known data set" in ended.out


def test_the_whole_name_of_an_edition_means_no_other_that_begins_so(cli, store):
    write(store, "gap", identity="voc2007-mini", spec={"data": "1" * 16})
    write(store, "gmp", identity="coco-mini", spec={"data": "2" * 16})
    assert "voc2007-mini, probe" in cli("leaderboard", "--dataset", "voc2007").out
    write(store, "gap", identity="voc2007", spec={"data": "3" * 16})
    for asked, shown in (("voc2007", {"voc2007"}), ("voc", {"voc2007", "voc2007-mini"})):
        out = cli("leaderboard", "--dataset", asked).out
        names = ("voc2007", "voc2007-mini", "coco-mini")
        assert {name for name in names if f"{name}, probe track" in out} == shown
    assert cli("leaderboard", "--dataset", "oco").code == 2


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


def test_however_much_is_asked_for_every_record_is_read_once(cli, store, monkeypatch):
    for method in ("gap", "gmp"):
        write(store, method, started="2026-03-01T00:00:00+00:00")
    read, attempt = [], mlbench.store.store.attempt
    monkeypatch.setattr(
        "mlbench.store.store.attempt", lambda file: read.append(file.stem) or attempt(file)
    )
    made, tables = [], mlbench.cli.boards.tables
    monkeypatch.setattr(
        "mlbench.cli.boards.tables",
        lambda records, influences: made.append(len(records)) or tables(records, influences),
    )
    ended = cli("leaderboard", "--wins", "--across", "--since", "2026-02-01")
    assert ended.code == 0, ended.err
    assert len(read) == len(set(read)) == 2
    assert made == [2, 0], "the boards of now, and those of then"


def test_a_data_set_that_has_no_board_writes_nothing(cli, store):
    write(store, "gap")
    ended = cli("leaderboard", "--dataset", "cocoo")
    assert ended.code == 2 and "fits" in ended.err and not ended.out
    assert not (store.root / "leaderboards").exists()


def test_boards_and_comparisons_take_data_sets_by_the_same_names(cli, store):
    """`voc2007` is the edition where there is one, though voc2007-mini begins so, too."""
    for n, identity in enumerate(("voc2007", "voc2007-mini")):
        for method, noise in (("gap", 1), ("gmp", 2)):
            write(store, method, noise=noise, identity=identity, spec={"data": f"{n}" * 16})
    assert cli("compare", "gap", "gmp", "--dataset", "voc2007").code == 0
    several = cli("compare", "gap", "gmp", "--dataset", "voc")
    assert several.code == 2 and "several boards" in several.err
