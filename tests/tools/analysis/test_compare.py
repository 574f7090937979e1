import shlex
from pathlib import Path

import numpy as np
import pytest

from mlbench.boards.ranks import pooled
from mlbench.boards.rows import tables
from mlbench.text import count
from mlbench.types import MeasureError, StoreError
from mlbench_tools.analysis.compare import win_matrix
from mlbench_tools.analysis.comparison import compare_runs, paired_bootstrap
from tests.boards.scored import labels, write
from tests.metrics.samples import bootstrap_map, pair
from tests.store.made import made_record

ROOT = Path(__file__).parents[3]


def compared(store, first, second, rows=()):
    return compare_runs(first, second, [rows or [first, second]] * 2, store, resamples=300)


def test_a_difference_has_an_interval_classes_and_settings(store):
    a = write(store, "msrn", 2.0, noise=1, settings={"optimizer": {"lr": 1e-3}})
    b = write(store, "gap", 0.5, noise=2)
    found = compared(store, [a], [b])
    over = found.over_images
    assert over.difference == pytest.approx(a.scores.mAP - b.scores.mAP)
    assert 0 < over.low < over.difference < over.high and over.p == pytest.approx(2 / 301)
    assert found.over_training is found.first.training_deviation is None and found.images == 400
    assert all(one.moved for one in found.classes) and len(found.classes) == 3
    sizes = [abs(one.difference) for one in found.classes]
    assert sizes == sorted(sizes, reverse=True)
    [dog] = [one for one in found.classes if one.name == "dog"]
    assert dog.first - dog.second == pytest.approx(dog.difference)
    assert dog.positives == int((labels()[:, 1] == 1).sum())
    settings = {name: values for name, *values in found.settings}
    assert settings["optimizer.lr"] == [1e-3, 1e-4] and settings["method"] == ["msrn", "gap"]


def test_equal_predictions_in_another_order_differ_in_nothing(store):
    a, b = (write(store, method, noise=1) for method in ("a", "b"))
    seen = store.predictions(b)
    order = np.arange(len(seen.keys))[::-1]
    keys = tuple(seen.keys[i] for i in order)
    store.write(b, type(seen)(seen.logits[order], seen.targets[order], keys))
    found = compared(store, [a], [b])
    assert found.equal and found.over_images.p == 1
    assert not any(one.moved for one in found.classes)


def test_the_noise_of_training_widens_the_interval(store):
    rows = [
        [write(store, m, q, noise=10 * s + i, spec={"seed": s}) for s in range(3)]
        for i, (m, q) in enumerate((("a", 1.2), ("b", 1.0)))
    ]
    found = compared(store, *rows)
    assert found.second.training_deviation == pooled(rows).deviation > 0
    assert found.first.run_ids == tuple(record.run_id for record in rows[0])
    assert found.over_training.low < found.over_images.low
    assert found.over_training.high > found.over_images.high
    assert "seed" not in [name for name, *_ in found.settings]
    assert ("seed", 0, 1) in compared(store, rows[0][:1], rows[0][1:2], rows).settings


def test_runs_that_do_not_compare_are_refused(store):
    a = write(store, "a")
    few = {"targets": labels()[:300], "spec": {"data": "e" * 16}}
    others = {
        "scored on different images": write(store, "b", **few),
        "scored on different targets": write(store, "c", targets=labels(seed=1)),
        "scored on different labels": write(store, "d", label_names=("cat", "tv", "dog")),
    }
    for message, other in others.items():
        with pytest.raises(MeasureError, match=message):
            compared(store, [a], [other])
    missing = made_record("e")
    store.write(missing)
    with pytest.raises(StoreError, match=f"{missing.run_id} .*has no predictions"):
        compared(store, [a], [missing])


@pytest.fixture
def runs(store):
    return {
        "a": write(store, "msrn", 2.0, noise=1),
        "b": write(store, "gap", 0.5, noise=2),
        "asl": write(store, "gap", 0.5, noise=3, settings={"loss": "asl"}),
        "elsewhere": write(store, "msrn", 1.0, noise=4, spec={"track": "controlled"}),
        "lonely": write(store, "gmp", 1.0, noise=5, identity="voc2007"),
    }


def test_runs_by_the_beginning_of_their_ids(cli, runs):
    told = ("A - B: +", "p = 0.002", "msrn, resnet18, bce", "method: msrn and gap", "moved")
    asked = ("compare", runs["a"].run_id[:8], runs["b"].run_id)
    cli(*asked).ok(*told, "the noise of training is unknown")
    cli("compare", runs["b"].run_id, runs["asl"].run_id).ok("Classes that moved: 0 of 3")


def test_a_run_against_itself_is_equal_and_nothing_is_tested(cli, runs, store):
    write(store, "msrn", 2.0, noise=9, spec={"seed": 1})  # the noise of training is known
    same = ("compare", runs["a"].run_id, runs["a"].run_id)
    assert "[" not in cli(*same).ok("The predictions of A and B are equal").out
    found = cli(*same, "--json").json
    assert found["equal"] and found["over_training"] is None
    found = cli("compare", runs["a"].run_id, runs["b"].run_id, "--json").json
    assert not found["equal"] and found["over_training"] is not None


def test_each_side_has_the_noise_of_its_own_board(cli, runs, store):
    pair = runs["b"].run_id, runs["elsewhere"].run_id
    write(store, "msrn", 2.0, noise=9, spec={"seed": 1})
    assert "no row of B's board has" in cli("compare", *pair).out
    assert "no row of A's board has" in cli("compare", *pair[::-1]).out
    write(store, "msrn", 0.2, noise=8, spec={"seed": 1, "track": "controlled"})
    one, other = (cli("compare", *p, "--json").json for p in (pair, pair[::-1]))
    assert one["first"] == other["second"] and one["second"] == other["first"]
    assert one["first"]["training_deviation"] != one["second"]["training_deviation"]
    low, high = (one["over_training"][side] for side in ("low", "high"))
    assert (-high, -low) == pytest.approx([other["over_training"][k] for k in ("low", "high")])


def test_methods_of_one_board_and_json(cli, runs):
    asked = ("compare", "msrn", "msrn", "--track", "controlled", "--dataset", "coco")
    cli(*asked).ok(runs["elsewhere"].run_id)
    found = cli("compare", "msrn", runs["asl"].run_id, "--json", "--resamples", 200).ok().json
    assert found["first"]["run_ids"] == [runs["a"].run_id] and found["resamples"] == 200
    assert ["loss", "bce", "asl"] in found["settings"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("gmp", "msrn"), "no board has both gmp and msrn"),
        (("msrn", "nothing"), "'nothing' is neither a run nor a method here; methods: gap"),
        (("--dataset", "nowhere"), "no record in results matches"),
    ],
)
def test_names_that_mean_no_two_rows_are_refused(cli, runs, names, message):
    cli("compare", *names).failed(message)


def test_of_several_rows_those_of_one_backbone_and_loss_are_compared(cli, runs, store):
    ended = cli("compare", "msrn", "gap").ok(runs["b"].run_id)
    assert "of 1 row of msrn and 2 rows of gap, those with resnet18 and bce" in ended.err
    write(store, "gap", 0.5, noise=6, settings={"epochs": 9})
    cli("compare", "msrn", "gap").failed("1 row of msrn and 3 rows of gap: ")


def test_without_names_a_matrix_says_who_beats_whom(cli, store):
    for i in range(12):
        write(store, f"method{i}", 1 + i / 3, noise=i)
    (table,) = tables(store.records(), store.influence)
    tens, ones, *lines, _ = win_matrix(table)
    assert (tens, ones) == ("            111", "   123456789012")
    assert [line.split()[1] for line in lines] == list(table.wins)
    ties = table.rows[0].rank_worst - 1
    assert lines[0].endswith(f"{table.rows[0].method}, resnet18, bce (# 1, {count(ties, 'tie')})")
    cli("compare", "--dataset", "coco-mini").ok("\n".join(["coco-mini-probe:", tens, ones, *lines]))
    [found] = cli("compare", "--json").json
    assert found["name"] == table.name and found["wins"] == list(table.wins)
    assert [row["run_ids"] for row in found["rows"]] == [list(row.run_ids) for row in table.rows]
    assert "name two runs" in cli("compare", "method1", "--json").err


def test_the_readmes_command_works_on_the_committed_results(cli):
    lines = (ROOT / "README.md").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("mlbench compare")]
    cli(*shlex.split(line)[1:], "--results", ROOT / "results", "--resamples", 100).ok("A - B:")


def differences(trials, seed, resamples=200, **options):
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        first, second, targets = pair(rng, **options)
        found, _ = paired_bootstrap([first], [second], targets, resamples)
        yield found


def test_an_absent_difference_is_not_found_at_the_promised_rate():
    """Of 120 at a rate of 5 %, more than 13 would be a chance of one in two hundred."""
    found = list(differences(120, seed=1, images=100, classes=5))
    assert 1 <= sum(one.p < 0.05 for one in found) <= 13
    assert sum(one.low <= 0 <= one.high for one in found) >= 120 - 13


def test_a_true_difference_is_found():
    found = differences(30, seed=2, images=150, classes=8, gain=0.8)
    assert sum(one.p < 0.05 and one.difference > 0 for one in found) >= 27


@pytest.mark.slow
@pytest.mark.parametrize("separation", [1.0, 2.5])
def test_the_promised_rate_over_many_samples(separation):
    """600 samples: 5 % is 30, and 5.3 more is a standard deviation."""
    found = differences(600, seed=3, resamples=400, images=300, separation=separation)
    assert 12 <= sum(one.p < 0.05 for one in found) <= 46


@pytest.fixture
def sample():
    return pair(np.random.default_rng(7))


def test_the_draws_of_both_are_the_same_images(sample):
    first, second, targets = sample
    found, _ = paired_bootstrap([first], [second], targets, 300)
    draws = 100 * (bootstrap_map(first, targets, 300) - bootstrap_map(second, targets, 300))
    low, high = np.percentile(draws - draws.mean() + found.difference, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-10)
    apart = bootstrap_map(first, targets, 300) - bootstrap_map(second, targets, 300, seed=1)
    assert draws.std() < 90 * apart.std(), "pairing removes the difficulty of the images"


def test_seeds_are_averaged_within_a_draw(sample):
    first, second, targets = sample
    found, classes = paired_bootstrap([first, second], [second], targets, 300)
    alone, classes_alone = paired_bootstrap([first], [second], targets, 300)
    assert found.difference == pytest.approx(alone.difference / 2)
    assert found.high - found.low == pytest.approx((alone.high - alone.low) / 2)
    for one, other in zip(classes, classes_alone, strict=True):
        assert one.difference == pytest.approx(other.difference / 2)


def test_swapping_the_sides_changes_only_the_sign(sample):
    first, second, targets = sample
    (one, classes), (other, swapped) = (
        paired_bootstrap([a], [b], targets, 300) for a, b in ((first, second), (second, first))
    )
    assert (one.difference, one.low, one.high) == pytest.approx(
        (-other.difference, -other.high, -other.low)
    )
    assert one.p == other.p
    assert [c.p for c in classes] == pytest.approx([c.p for c in swapped])


def test_p_is_never_zero_and_a_class_without_a_positive_has_no_difference(sample):
    _, second, targets = sample
    targets = targets.copy()
    targets[:, 2] = 0
    found, classes = paired_bootstrap([10.0 * targets], [second], targets, 99)
    assert found.p == pytest.approx(2 / 100)
    assert [c for c, one in enumerate(classes) if one is None] == [2]
