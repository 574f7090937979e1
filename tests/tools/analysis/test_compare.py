import json
import re
import shlex
from pathlib import Path

import pytest

from mlbench.store import Store
from tests.boards.scored import labels, write

ROOT = Path(__file__).parents[3]


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


def test_where_no_class_moved_it_is_said_what_each_p_is_over(cli, runs):
    ended = cli("compare", runs["b"].run_id, runs["asl"].run_id)
    said = " ".join(ended.out.split())
    assert (
        "None of 3 classes moved beyond chance (p by Holm over the classes, intervals of each "
        "class alone); the largest differences:"
    ) in said, ended.err


def test_a_run_against_itself_is_equal_and_nothing_is_tested(cli, runs, tmp_path):
    write(Store(tmp_path / "results"), "msrn", 2.0, noise=9, spec={"seed": 1})  # noise of training
    ended = cli("compare", runs["a"].run_id, runs["a"].run_id)
    assert ended.code == 0 and "The predictions of A and B are equal" in ended.out
    assert "[" not in ended.out and "differences:" not in ended.out
    found = json.loads(cli("compare", runs["a"].run_id, runs["a"].run_id, "--json").out)
    assert found["equal"] and found["over_training"] is None
    found = json.loads(cli("compare", runs["a"].run_id, runs["b"].run_id, "--json").out)
    assert not found["equal"] and found["over_training"] is not None


def test_small_p_values_and_few_positives_are_not_said_too_exactly(cli, tmp_path):
    store, targets = Store(tmp_path / "results"), labels()
    targets[9:, 0] = 0
    first = write(store, "msrn", 9.0, noise=1, targets=targets)
    second = write(store, "gap", 0.1, noise=2, targets=targets)
    ended = cli("compare", first.run_id, second.run_id)
    assert ended.code == 0 and "p < 0.001" in ended.out and "e-" not in ended.out
    [few, *others] = [line for line in ended.out.splitlines() if "positive" in line]
    for line in (few, *others):
        told = int(re.search(r"(\d+) positive", line)[1])
        assert (told < 10) == line.endswith("too few to rely on the interval and p")
    assert len(others) == 2 and any("too few" in line for line in (few, *others))


def test_scores_that_are_not_finite_name_their_file(cli, runs, tmp_path):
    store = Store(tmp_path / "results")
    seen = store.predictions(runs["b"])
    seen.logits[3, 1] = float("nan")
    store.write(runs["b"], seen)
    ended = cli("compare", runs["a"].run_id, runs["b"].run_id)
    assert ended.code == 2 and f"{runs['b'].run_id}.npz: 1 of 1200 scores are not" in ended.err


def test_methods_of_one_board_and_json(cli, runs):
    ended = cli("compare", "msrn", runs["asl"].run_id, "--json", "--resamples", 200)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["first"]["run_ids"] == [runs["a"].run_id] and found["resamples"] == 200
    assert ["loss", "bce", "asl"] in found["settings"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("gmp", "msrn"), "no board has both gmp and msrn"),
        (("msrn", "nothing"), "'nothing' is neither a run nor a method here; methods: gap"),
        (("msrn", "gmp"), "no board has both"),
        (
            ("msrn", "msrn"),
            "msrn and msrn are together on several boards: coco-mini-controlled, coco-mini-probe; "
            "choose one by --dataset and --track",
        ),
    ],
)
def test_names_that_mean_no_two_rows_are_refused(cli, runs, names, message):
    ended = cli("compare", *names)
    assert ended.code == 2 and message in ended.err, ended.err


def test_of_several_rows_those_of_one_backbone_and_loss_are_compared(cli, runs, tmp_path):
    ended = cli("compare", "msrn", "gap")
    assert ended.code == 0 and runs["b"].run_id in ended.out, ended.err
    assert "of 1 row of msrn and 2 rows of gap, those with resnet18 and bce" in ended.err
    write(Store(tmp_path / "results"), "gap", 0.5, noise=6, settings={"epochs": 9})
    ended = cli("compare", "msrn", "gap")
    assert ended.code == 2 and "has 3 rows of gap" in ended.err


def test_the_beginning_of_several_ids_is_refused(cli):
    ids = [record.run_id for record in Store(ROOT / "results").records()]
    often = max((run_id[0] for run_id in ids), key=[run_id[0] for run_id in ids].count)
    ended = cli("compare", often, "msrn", "--results", ROOT / "results")
    assert ended.code == 2 and f"'{often}' is the beginning of" in ended.err


def test_a_run_without_a_row_is_told(cli, runs):
    ended = cli("compare", runs["a"].run_id, runs["lonely"].run_id, "--dataset", "coco")
    assert ended.code == 2 and "(voc2007, probe, ok) has no row on the boards" in ended.err


def test_the_whole_name_of_an_edition_means_no_other_that_begins_so(cli, runs, tmp_path):
    store = Store(tmp_path / "results")
    for noise, identity in enumerate(("voc2007", "voc2007-mini")):
        write(store, "ssgrl", 1.5, noise=noise, identity=identity, spec={"data": f"{noise}" * 16})
        write(store, "grl", 1.0, noise=noise, identity=identity, spec={"data": f"{noise}" * 16})
    ended = cli("compare", "ssgrl", "grl", "--dataset", "voc2007")
    assert ended.code == 0, ended.err
    assert "voc2007-mini-probe, voc2007-probe" in cli("compare", "ssgrl", "grl").err


def test_track_and_data_set_choose_the_board(cli, runs):
    ended = cli("compare", "msrn", "msrn", "--track", "controlled", "--dataset", "coco")
    assert ended.code == 0 and runs["elsewhere"].run_id in ended.out
    assert "No setting differs." in ended.out


def test_runs_of_other_data_are_refused(cli, runs, tmp_path):
    other = write(Store(tmp_path / "results"), "ssgrl", targets=labels(300), identity="voc2007")
    ended = cli("compare", runs["a"].run_id, other.run_id)
    assert ended.code == 2 and "were scored on other splits" in ended.err


def test_the_readmes_command_works_on_the_committed_results(cli):
    lines = (ROOT / "README.md").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("mlbench compare")]
    ended = cli(*shlex.split(line)[1:], "--results", ROOT / "results", "--resamples", 100)
    assert ended.code == 0 and "A - B:" in ended.out, ended.err
