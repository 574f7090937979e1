"""Fronts: nobody on one is dominated, everybody else is; and what the intervals leave open."""

from hypothesis import given
from hypothesis import strategies as st

from mlbench.boards.pareto import Bounds, fronts, marks, standings
from mlbench.boards.rows import tables
from tests.store.made import made_cost, made_efficiency, made_record, made_scores

# Few values, so that ties are common.
points = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3), st.integers(0, 3)),
    max_size=14,
)


def dominates(one, other):
    """(cost, score) pairs, by the definition."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def taken(found):
    """Arguments of ``standings`` from (cost, score, below, above)."""
    costs = [Bounds(cost, cost, cost + above) for cost, _, _, above in found]
    return costs, [Bounds(s - below, s, s + above) for _, s, below, above in found]


@given(points)
def test_nobody_on_the_front_is_dominated_and_everybody_else_is(found):
    pairs = [point[:2] for point in found]
    for own, standing in zip(pairs, standings(*taken(found)), strict=True):
        beaten = any(dominates(other, own) for other in pairs)
        assert (standing == "front") == (not beaten)


@given(points)
def test_who_may_be_on_the_front_is_undominated_in_the_best_case(found):
    costs, scores = taken(found)
    for i, standing in enumerate(standings(costs, scores)):
        own = (costs[i].low, scores[i].high)
        others = [(costs[j].high, scores[j].low) for j in range(len(costs)) if j != i]
        possible = not any(dominates(other, own) for other in others)
        assert (standing != "behind") == possible


# -------------------------------------------------------------------------------------- on a board
def row(method, value, gmacs, head, ms, device="AMD EPYC", half=1.0, seed=0, spread=0.0):
    """A record of one method and its speed: mAP, cost and half the widths of their intervals."""
    scores = made_scores(value).model_copy(
        update={"mAP_low": value - half, "mAP_high": value + half}
    )
    cost = made_efficiency(gmacs_backbone=gmacs, parameters_head=head)
    record = made_record(method, value, scores=scores, efficiency=cost, spec={"seed": seed})
    return record, made_cost(record, ms, device=device, half=spread)


def board(*pairs):
    (table,) = tables([record for record, _ in pairs], costs=[c for _, c in pairs if c is not None])
    return table.rows


def test_a_front_for_every_cost_and_place():
    rows = board(
        row("large", 60, 9.0, 9_000_000, 50.0),
        row("small", 50, 1.0, 100_000, 5.0),
        row("wasteful", 40, 10.0, 10_000_000, 60.0),
        row("elsewhere", 45, 5.0, 5_000_000, 1.0, device="another processor"),
    )
    assert {(front.cost, front.where.partition(",")[0]) for front in fronts(rows)} == {
        ("GMACs", ""),
        ("parameters", ""),
        ("latency", "AMD EPYC"),
        ("latency", "another processor"),
    }
    by_method = dict(zip((r.method for r in rows), marks(rows), strict=True))
    assert by_method == {
        "large": "GMACs, params, latency (1)",
        "small": "GMACs, params, latency (1)",
        "wasteful": "",
        "elsewhere": "latency (2)",
    }


def of_all_costs(rows):
    """The standings of the first and the second row, which are the same for every cost."""
    (found,) = {front.standings for front in fronts(rows)}
    return found


def test_the_front_is_open_where_the_intervals_overlap():
    near = board(row("first", 50.0, 1, 100, 5.0), row("second", 49.5, 2, 100, 6.0))
    assert of_all_costs(near) == ("front", "maybe")
    assert marks(near) == ["GMACs, params, latency", ""]
    far = board(row("first", 50.0, 1, 100, 5.0), row("second", 47.5, 2, 100, 6.0))
    assert of_all_costs(far) == ("front", "behind")


def test_seeds_that_agree_do_not_put_the_images_out_of_doubt():
    """Two standard deviations of the seeds, 0.2 points, would call the second row beaten."""
    first = [row("first", 50.0 + i / 10, 1, 100, 5.0, half=2.0, seed=i) for i in range(3)]
    second = [row("second", 49.0 + i / 10, 2, 100, 6.0, half=2.0, seed=i) for i in range(3)]
    assert of_all_costs(board(*first, *second)) == ("front", "maybe")


def test_a_row_without_a_cost_stands_on_no_front():
    without = made_record("b", 60, efficiency=None), None
    rows = board(row("a", 50, 1, 100, 5.0), without)
    found = {r.method: mark for r, mark in zip(rows, marks(rows), strict=True)}
    assert found == {"a": "GMACs, params, latency", "b": ""}
    assert fronts(board(without)) == []


def test_a_row_is_not_behind_another_that_may_be_as_fast():
    first, second = ("first", 60, 1, 100, 5.0), ("second", 40, 2, 200, 5.1)
    found = {s: fronts(board(row(*first), row(*second, spread=s))) for s in (0, 0.03)}
    latency = {s: f.standings for s, made in found.items() for f in made if f.cost == "latency"}
    assert latency == {0: ("front", "behind"), 0.03: ("front", "maybe")}
