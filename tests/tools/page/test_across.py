import numpy as np
import pytest
from scipy import stats

from mlbench.boards.rows import tables
from mlbench.metrics.significance import holm
from mlbench.types import DatasetCard, Optimizer
from mlbench_tools.page.across import critical_differences, diagram
from tests.store.made import made_record


def records(scores_KN, methods="abcdefgh"):
    return [
        on(f"data{n}", methods[k], float(value))
        for k, row in enumerate(scores_KN)
        for n, value in enumerate(row)
    ]


def on(dataset, method, value, identity=None, spec=None, **fields):
    """A record on a data set, whole unless ``spec`` says otherwise."""
    identity = identity or dataset
    spec = {"dataset": dataset, "data": identity.ljust(16, "_")[:16], **(spec or {})}
    return made_record(method, value, identity=identity, spec=spec, **fields)


def only(scores_KN):
    (found,) = critical_differences(tables(records(scores_KN)))
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
    (found,) = critical_differences(tables([*records(scores), on("data0", "lonely", 99.0)]))
    assert len(found.methods) == 3 and len(found.datasets) == 6


def with_rate(rate):
    settings = made_record("a").spec.settings
    return {"settings": settings.model_copy(update={"optimizer": Optimizer(lr=rate)})}


def test_a_row_is_found_again_where_its_namesake_has_another_rate():
    """On data0 the title of ``a`` names its rate, and elsewhere it does not."""
    scores = 50 + np.random.default_rng(6).standard_normal((3, 6))
    runs = [on(f"data{n}", "a", float(scores[0, n]), spec=with_rate(0.1)) for n in range(6)]
    namesake = on("data0", "a", 90.0, spec=with_rate(0.2))
    (found,) = critical_differences(tables([*runs, namesake, *records(scores[1:], "bc")]))
    assert sorted(title[0] for title in found.methods) == ["a", "b", "c"]
    plain = only(scores)
    assert found.ranks == plain.ranks, "the namesake's score was taken"


def test_one_row_per_data_set_is_one_method_whatever_its_rates():
    scores = 50 + np.random.default_rng(7).standard_normal((3, 6))
    runs = [on(f"data{n}", "a", float(scores[0, n]), spec=with_rate(0.1 * n)) for n in range(6)]
    (found,) = critical_differences(tables([*runs, *records(scores[1:], "bc")]))
    assert len(found.methods) == 3


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


# ------------------------------------------------------------------------ independent data sets
@pytest.mark.parametrize(
    ("suffix", "spec"),
    [
        ("-holdout-0.2", {"holdout": 0.2}),
        ("-labels-40", {"label_noise": {"keep": 0.4}}),
        ("-flipped-10", {"label_noise": {"flip": 0.1}}),
        ("-2-labels", {"labels": ("cat", "dog")}),
        ("-incomplete-0123456789abcdef", {"incomplete": True}),
    ],
)
def test_a_part_of_a_data_set_or_its_wrong_labels_is_no_data_set(suffix, spec):
    scores = 50 + np.random.default_rng(5).standard_normal((3, 6))
    parts = [on("data9", method, 10.0, f"data9{suffix}", spec) for method in "abc"]
    (found,) = critical_differences(tables([*records(scores), *parts]))
    assert found.datasets == tuple(f"data{n}" for n in range(6))


def test_of_a_family_the_largest_test_split_counts_and_the_others_are_named():
    scores = 50 + np.random.default_rng(6).standard_normal((3, 5))
    editions = [
        ("coco", "coco-mini", 915),
        ("coco2014", "coco2014", 40_504),
        ("coco2017", "coco2017", 4952),
        ("voc2007", "voc2007-mini", 600),
        ("voc2007", "voc2007", 4952),
    ]
    some = [
        on(dataset, method, 50.0 + "abc".index(method), identity, test_images=n)
        for dataset, identity, n in editions
        for method in "abc"
    ]
    card = DatasetCard(title="COCO", bibtex="", licence="", home="", family="coco")
    cards = dict.fromkeys(("coco", "coco2014", "coco2017"), card)
    (found,) = critical_differences(tables([*records(scores), *some]), cards)
    assert set(found.datasets) == {*(f"data{n}" for n in range(5)), "coco2014", "voc2007"}
    assert found.said.endswith(
        "Data sets must be independent; left out: coco-mini (beside coco2014), coco2017 (beside "
        "coco2014), voc2007-mini (beside voc2007)."
    )
    (apart,) = critical_differences(tables([*records(scores), *some]))
    assert len(apart.datasets) == 9, "nobody told that coco, coco2014 and coco2017 are a family"
