import pytest

from mlbench.store import Store
from tests.boards.scored import write


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_ranks_are_those_of_paired_differences(cli, store):
    for i, method in enumerate(("gap", "gmp", "msrn")):
        write(store, method, 0.1 if method == "msrn" else 1.5, noise=i)
    ended = cli("leaderboard")
    assert ended.code == 0, ended.err
    first = [line.split()[:2] for line in ended.out.splitlines() if "resnet18 bce" in line]
    tied = "1\N{EN DASH}2"
    assert [rank for rank, _ in first] == [tied, tied, "3"] and first[2] == ["3", "msrn"]
    assert "msrn" in (store.root / "leaderboards" / "coco-mini-probe.md").read_text()


def test_options_that_no_column_shows_stand_below(cli, store):
    write(store, "gap", settings={"head_options": {"prior_bias": True}})
    write(store, "gap", noise=2, settings={"loss": "asl"})
    assert "gap: prior_bias=True (bce)" in cli("leaderboard").out


def test_a_data_set_that_has_no_board_writes_nothing(cli, store):
    write(store, "gap")
    ended = cli("leaderboard", "--dataset", "cocoo")
    assert ended.code == 2 and "matches" in ended.err and not ended.out
    assert not (store.root / "leaderboards").exists()


def test_boards_and_comparisons_take_data_sets_by_the_same_names(cli, store):
    """`voc2007` is the edition where there is one, though voc2007-mini begins so, too."""
    for n, identity in enumerate(("voc2007", "voc2007-mini")):
        for method, noise in (("gap", 1), ("gmp", 2)):
            write(store, method, noise=noise, identity=identity, spec={"data": f"{n}" * 16})
    assert cli("compare", "gap", "gmp", "--dataset", "voc2007").code == 0
    several = cli("compare", "gap", "gmp", "--dataset", "voc")
    assert several.code == 2 and "several boards" in several.err
