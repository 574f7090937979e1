import numpy as np
import pytest
from scipy import stats

from mlbench.boards.ranks import rank
from mlbench.boards.render import markdown
from mlbench.boards.rows import tables
from mlbench.metrics.paired import Influence
from mlbench_tools.analysis.comparison import compare_runs
from tests.boards.scored import labels, write
from tests.store.made import made_record, made_scores


def board(store):
    (table,) = tables(store.records(), store.influence)
    return table


def test_what_cannot_be_told_apart_shares_a_rank(store):
    for i, quality in enumerate((1.5, 1.5, 1.5, 0.2)):
        write(store, f"method{i}", quality, noise=i)
    table = board(store)
    assert sorted(row.rank for row in table.rows) == [1, 1, 1, 4]
    assert table.rows[-1].method == "method3" and table.rows[-1].rank_worst == 4
    assert {row.rank_worst for row in table.rows[:3]} == {3}
    assert table.wins == (".==+", "=.=+", "==.+", "---.")


def test_the_image_variance_is_that_of_the_paired_bootstrap(store):
    records = [write(store, "a", 1.5, noise=1), write(store, "b", 1.0, noise=2)]
    values = [store.influence(record).values.astype(float) for record in records]
    deviation = ((values[0] - values[1]) ** 2).sum() ** 0.5
    sides = [[record] for record in records]
    found = compare_runs(*sides, [sides, sides], store).over_images
    drawn = (found.high - found.low) / 2 / 1.96
    assert deviation == pytest.approx(drawn, rel=0.1)


def test_pairing_tells_apart_what_intervals_alone_do_not(store):
    for i, quality in enumerate((1.4, 1.0)):
        write(store, f"method{i}", quality, noise=5)
    paired, unpaired = board(store), tables(store.records())[0]
    assert [row.rank for row in paired.rows] == [1, 2] and paired.unpaired == 0
    wide = [
        record.model_copy(
            update={"scores": record.scores.model_copy(update={"mAP_low": 0, "mAP_high": 100})}
        )
        for record in store.records()
    ]
    assert unpaired.unpaired == 2
    assert [row.rank for row in tables(wide)[0].rows] == [1, 1]


def test_rows_without_predictions_are_ranked_by_intervals_and_the_board_says_so(store):
    write(store, "a", 1.5)
    write(store, "b", 1.4, noise=2)
    store.write(made_record("c", scores=made_scores(1.0), test_images=400))
    table = board(store)
    assert table.unpaired == 1 and [row.rank for row in table.rows] == [1, 1, 3]
    assert "1 of 3 rows have no usable predictions" in markdown([table])


@pytest.mark.parametrize("images", [3, 400])
@pytest.mark.parametrize("paired", [True, False])
def test_a_difference_counts_from_students_critical_value_on(images, paired):
    """The t test of each image's part of the difference, or of the intervals of two rows."""
    parts = stats.norm.ppf((np.arange(images) + 0.5) / images)
    error = stats.sem(parts) if paired else 2**0.5 / 1.959964  # `made_scores` reach 1 either side
    critical = error * stats.t.ppf(0.975, images - 1)
    common = 5 * np.cos(np.arange(images)) / images  # of images that are hard for both
    values = {"a": common, "b": common + parts / images}
    for times, wins in ((0.99, (".=", "=.")), (1.01, (".-", "+."))):
        better = 50 + times * critical
        rows = [[made_record(m, v, test_images=images)] for m, v in (("a", 50), ("b", better))]
        paired_by = (lambda r: Influence("same", values[r.spec.method], 0)) if paired else None
        assert rank(rows, paired_by).wins == wins


def test_the_noise_of_training_is_pooled_over_the_board(store):
    for seed, quality in enumerate((1.0, 2.0)):
        write(store, "unsteady", quality, noise=seed, spec={"seed": seed})
    write(store, "a", 1.6, noise=7)
    write(store, "b", 1.1, noise=7)
    table = board(store)
    spread = next(row.deviation for row in table.rows if row.seeds == 2)
    assert table.training_deviation == pytest.approx(spread)
    assert {row.rank for row in table.rows} == {1}, "one degree of freedom tells little apart"
    assert f"sd {spread:.2f} between seeds" in markdown([table])


def test_equal_predictions_are_never_told_apart(store):
    for method in ("a", "b"):
        write(store, method, 1.0, noise=3)
    table = board(store)
    assert table.wins == (".=", "=.") and [row.rank for row in table.rows] == [1, 1]


def test_rounding_of_equal_predictions_is_no_difference():
    """The same three models, whose influences are averaged in another order."""
    parts = np.random.default_rng(0).standard_normal((3, 400)).astype(np.float32) / 400
    rows = [
        [made_record(m, 50 + 1e-6 * i, spec={"seed": s}, test_images=400) for s in range(3)]
        for i, m in enumerate("ab")
    ]
    influence = lambda r: Influence("same", parts[r.spec.seed - (r.spec.method == "b")], 0)  # noqa: E731
    assert rank(rows, influence).wins == (".=", "=.")


def test_runs_on_other_images_are_compared_as_strangers(store):
    write(store, "a", 3.0)
    write(store, "b", 0.1, targets=labels(400, seed=1))
    table = board(store)
    assert [row.rank for row in table.rows] == [1, 2] and table.unpaired == 0


def test_the_order_of_the_rows_changes_no_rank(store):
    for i in range(5):
        write(store, f"method{i}", 1 + i / 5, noise=i)
    records = store.records()
    assert tables(records, store.influence) == tables(records[::-1], store.influence)


def test_false_claims_are_rare_on_boards_of_equals(store):
    """25 boards of 6 equal rows: a false claim on more than 5 would be a chance of 1 in 500."""
    boards = 0
    for trial in range(25):
        for i in range(6):
            write(store, f"method{i}", 1.0, noise=1000 * trial + i, targets=labels(150, seed=trial))
        boards += any(row.rank > 1 for row in board(store).rows)
    assert boards <= 5
