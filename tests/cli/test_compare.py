import json

import pytest

from mlbench.store import Store
from tests.leaderboard.scored import write


@pytest.fixture
def runs(tmp_path):
    store = Store(tmp_path / "results")
    return {
        "a": write(store, "msrn", 2.0, noise=1),
        "b": write(store, "gap", 0.5, noise=2),
        "asl": write(store, "gap", 0.5, noise=3, settings={"loss": "asl"}),
        "elsewhere": write(store, "msrn", 1.0, noise=4, spec={"track": "controlled"}),
        "lonely": write(store, "gmp", 1.0, noise=5, identity="voc2007"),
    }


def test_runs_by_the_beginning_of_their_ids(cli, runs):
    ended = cli("compare", runs["a"].run_id[:8], runs["b"].run_id)
    assert ended.code == 0, ended.err
    for part in ("A - B: +", "p = 0.002", "msrn, resnet18, bce", "method: msrn and gap", "moved"):
        assert part in ended.out
    assert "the noise of training is unknown" in ended.out


def test_methods_of_one_board_and_json(cli, runs):
    ended = cli("compare", "msrn", runs["asl"].run_id, "--json", "--resamples", 200)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["first"]["run_ids"] == [runs["a"].run_id] and found["resamples"] == 200
    assert ["loss", "bce", "asl"] in found["settings"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("msrn", "gap"), "has 2 rows of gap"),
        (("msrn", "nothing"), "'nothing' is neither a run nor a method here; methods: gap"),
        (("msrn", "gmp"), "no board has both"),
        (("msrn", "msrn"), "coco-mini probe, coco-mini controlled|controlled, coco-mini probe"),
    ],
)
def test_names_that_mean_no_two_rows_are_refused(cli, runs, names, message):
    ended = cli("compare", *names)
    assert ended.code == 2 and any(part in ended.err for part in message.split("|")), ended.err


def test_track_and_data_set_choose_the_board(cli, runs):
    ended = cli("compare", "msrn", "msrn", "--track", "controlled", "--dataset", "coco")
    assert ended.code == 0 and runs["elsewhere"].run_id in ended.out
    assert "No setting differs." in ended.out


def test_runs_of_other_data_are_refused(cli, runs, tmp_path):
    from tests.leaderboard.scored import labels

    other = write(Store(tmp_path / "results"), "ssgrl", targets=labels(300), identity="voc2007")
    ended = cli("compare", runs["a"].run_id, other.run_id)
    assert ended.code == 2 and "were scored on other splits" in ended.err
