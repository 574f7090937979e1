"""Fronts: nobody on one is dominated, everybody else is."""

from hypothesis import given
from hypothesis import strategies as st

from mlbench.boards.pareto import fronts, marks, undominated
from mlbench.boards.rows import tables
from tests.store.made import made_cost, made_efficiency, made_record

# Few values, so that ties are common.
costs = st.integers(0, 6) | st.none()
points = st.lists(st.tuples(costs, st.integers(0, 6)), max_size=14)


def dominates(one, other):
    """(cost, score) pairs, by the definition."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(points)
def test_nobody_on_the_front_is_dominated_and_everybody_else_with_a_cost_is(found):
    members = undominated([cost for cost, _ in found], [score for _, score in found])
    known = [point for point in found if point[0] is not None]
    for own, member in zip(found, members, strict=True):
        assert member == (own[0] is not None and not any(dominates(one, own) for one in known))


def row(method, value, gmacs, head, ms, device="AMD EPYC"):
    """A record of one method and its speed."""
    cost = made_efficiency(gmacs_backbone=gmacs, parameters_head=head)
    record = made_record(method, value, efficiency=cost)
    return record, made_cost(record, ms, device=device)


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
    found = {(front.cost, front.where.partition(",")[0]) for front in fronts(rows)}
    latencies = {("latency", device) for device in ("AMD EPYC", "another processor")}
    assert found == {("GMACs", ""), ("parameters", "")} | latencies
    assert dict(zip((r.method for r in rows), marks(rows), strict=True)) == {
        "large": "GMACs, params, latency (1)",
        "small": "GMACs, params, latency (1)",
        "wasteful": "",
        "elsewhere": "latency (2)",
    }


def test_a_row_without_a_cost_stands_on_no_front():
    without = made_record("b", 60, efficiency=None), None
    rows = board(row("a", 50, 1, 100, 5.0), without)
    found = {r.method: mark for r, mark in zip(rows, marks(rows), strict=True)}
    assert found == {"a": "GMACs, params, latency", "b": ""}
    assert fronts(board(without)) == []
