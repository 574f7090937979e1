import numpy as np
import pytest
from scipy import stats

from mlbench.leaderboard import tables
from mlbench.leaderboard.across import critical_differences, diagram
from mlbench.metrics.significance import holm
from tests.store.made import made_record


def boards(scores_KN, methods="abcdefgh"):
    return tables(
        made_record(methods[k], float(value), identity=f"data{n}", spec={"data": f"{n:016d}"})
        for k, row in enumerate(scores_KN)
        for n, value in enumerate(row)
    )


def only(scores_KN):
    (found,) = critical_differences(boards(scores_KN))
    return found


def test_clear_differences_on_many_data_sets_are_told_apart():
    rng = np.random.default_rng(0)
    scores = 50 + np.array([[9.0], [5.0], [4.9], [0.0]]) + rng.standard_normal((4, 14))
    found = only(scores)
    assert found.methods[0].startswith("a,") and found.methods[3].startswith("d,")
    assert found.groups == ((1, 2),)
    assert found.ranks[0] == 1 and found.ranks[3] == 4 and sum(found.ranks) == 10
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*scores).pvalue)
    assert found.nemenyi == pytest.approx(2.569 * (4 * 5 / 6 / 14) ** 0.5, rel=1e-3)
    raw = stats.wilcoxon(scores[0] - scores[3]).pvalue
    assert next(p for i, j, p in found.p if (i, j) == (0, 3)) == pytest.approx(6 * raw)


def test_chance_is_one_group():
    found = only(50 + np.random.default_rng(1).standard_normal((4, 8)))
    assert found.groups == ((0, 3),) and "cannot be told apart as a whole" in found.said


@pytest.mark.parametrize("shape", [(4, 4), (2, 9)])
def test_too_few_data_sets_or_methods_say_nothing(shape):
    found = only(50 + np.random.default_rng(2).standard_normal(shape))
    assert "nothing can be said" in found.said and found.methods == () and found.nemenyi is None
    assert diagram(found) == [found.said]


def test_too_few_data_sets_for_the_pairs_say_how_many_it_takes():
    found = only(np.arange(4)[:, None] * 10 + 50.0 + np.arange(6)[None, :])
    assert "too few for Wilcoxon with Holm" in found.said and "about 8" in found.said
    assert found.groups == ((0, 3),)


def test_rows_that_a_board_lacks_take_no_part():
    scores = 50 + np.random.default_rng(3).standard_normal((3, 6))
    extra = made_record("lonely", 99.0, identity="data0", spec={"data": f"{0:016d}"})
    records = [
        made_record("abc"[k], float(scores[k, n]), identity=f"data{n}", spec={"data": f"{n:016d}"})
        for k in range(3)
        for n in range(6)
    ]
    (found,) = critical_differences(tables([*records, extra]))
    assert len(found.methods) == 3 and len(found.datasets) == 6


def test_the_diagram_has_a_bar_beside_each_group():
    scores = 50 + np.array([[9.0], [5.0], [4.9], [0.0]])
    found = only(scores + np.random.default_rng(0).standard_normal((4, 14)))
    lines = diagram(found)
    assert [line[7:9] for line in lines[1:5]] == ["  ", "| ", "| ", "  "]
    assert "critical difference of mean ranks" in lines[-1]


def test_every_pair_has_wilcoxons_p_and_equal_scores_are_no_difference():
    """Ties, zeros and repeated patterns of ranks included."""
    scores = np.random.default_rng(4).integers(0, 4, (7, 9)).astype(float) + 50
    scores[6] = scores[5]
    found = only(scores)
    rows = [" abcdefgh".index(title[0]) - 1 for title in found.methods]
    raw = [
        stats.wilcoxon(scores[rows[i]] - scores[rows[j]]).pvalue
        if (scores[rows[i]] != scores[rows[j]]).any()
        else 1.0
        for i, j, _ in found.p
    ]
    assert [p for _, _, p in found.p] == pytest.approx(list(holm(raw)))


def test_where_all_rows_tie_everywhere_nothing_differs():
    found = only(np.full((3, 6), 50.0) + np.arange(6)[None, :])
    assert found.friedman_p == 1 and found.groups == ((0, 2),)
