"""Methods over several data sets, as the index page says and draws them."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbench.boards.rows import tables
from mlbench_tools.page.catalogue import Catalogue
from mlbench_tools.page.differences import _bars, across
from mlbench_tools.page.site import write_site
from tests.store.made import made_record
from tests.tools.page.test_page import EVIL, Page


def over_data_sets(scores_KN, methods="abcdefgh", settings=None):
    return [
        made_record(
            methods[k],
            float(value),
            identity=f"data{n}",
            spec={"data": f"{n:016d}", "dataset": f"data{n}"},
            settings=settings and settings[k],
        )
        for k, row in enumerate(scores_KN)
        for n, value in enumerate(row)
    ]


def only(scores_KN, **given_):
    (found,) = across(tables(over_data_sets(scores_KN, **given_)))
    return found


BETTER = [[70.0] * 6, [50, 51] * 3, [51, 50] * 3]
"""On 6 data sets the first is better everywhere, and the others tie."""


def clear():
    """The first better everywhere, the next two alike, the last worst, on enough data sets."""
    noise = np.random.default_rng(0).standard_normal((4, 14))
    return 50 + np.array([[9.0], [5.0], [4.9], [0.0]]) + noise


def ends(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", path)]


def stems(drawing):
    return [float(re.match(r"M([\d.]+) ", name.path)[1]) for name in drawing.names]


def test_one_better_everywhere_and_two_that_tie():
    found = only(BETTER)
    assert [line.rank for line in found.standings] == [1, 2.5, 2.5]
    best, second, third = stems(found.drawing)
    assert best == found.drawing.left and second == third > best
    assert second == pytest.approx(best + 0.75 * (found.drawing.right - best))
    assert "differ" in found.said and "too few for Wilcoxon with Holm" in found.said
    assert [line.same for line in found.standings] == ["2 to 3", "1, 3", "1 to 2"]
    ((first, last),) = ends(found.drawing.bars)
    assert first < best and last > third, "six data sets cannot tell a pair apart"


def test_a_bar_joins_what_cannot_be_told_apart_and_nothing_else():
    found = only(clear())
    assert [line.same for line in found.standings] == ["", "3", "2", ""]
    at = stems(found.drawing)
    ((first, last),) = ends(found.drawing.bars)
    assert at[0] < first < at[1] <= at[2] < last < at[3]


def test_lines_to_names_never_cross():
    rng = np.random.default_rng(1)
    drawing = only(50 + np.arange(8)[:, None] + 2 * rng.standard_normal((8, 9))).drawing
    parts = [
        tuple(map(float, re.match(r"M([\d.]+) [\d.]+V([\d.]+)H([\d.]+)", name.path).groups()))
        for name in drawing.names
    ]
    assert len(parts) == 8
    for i, (x, y, end) in enumerate(parts):
        assert 0 < end < drawing.width and y < drawing.height
        for j, (other, low, _) in enumerate(parts):
            crossed = min(x, end) < other < max(x, end) and low > y
            assert i == j or not crossed, (i, j)


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 200)), max_size=20))
def test_bars_of_a_lane_lie_apart(spans):
    spans = sorted((start, start + length) for start, length in spans)
    placed = _bars(spans)
    assert [bar[:2] for bar in placed] == spans
    for i, (first, last, lane) in enumerate(placed):
        for other, end, same in placed[:i]:
            assert lane != same or end < first or last < other


def test_what_all_names_share_is_said_once():
    drawing = only(BETTER).drawing
    assert drawing.shared == "resnet18, bce"
    assert [name.text for name in drawing.names] == ["a · 1.00", "b · 2.50", "c · 2.50"]
    assert drawing.names[0].method == "a, resnet18, bce"
    mixed = only(BETTER, settings=[{}, {"loss": "asl"}, {}]).drawing
    assert mixed.shared == "" and mixed.names[0].text == "a, resnet18, bce · 1.00"


def test_a_long_name_is_cut_in_the_drawing_and_whole_in_the_table():
    found = only(BETTER, methods=["m" * 90, "b", "c"])
    assert len(found.drawing.names[0].text) < 70 and "…" in found.drawing.names[0].text
    assert found.standings[0].method.startswith("m" * 90)


def test_too_many_methods_have_a_table_and_no_drawing(monkeypatch):
    monkeypatch.setattr("mlbench_tools.page.differences.MOST", 3)
    assert only(BETTER).drawing is not None
    found = only(clear())
    assert found.drawing is None and len(found.standings) == 4


def index(tmp_path, made):
    given_ = {"results": tmp_path / "none", "cache": tmp_path / "cache", "catalogue": Catalogue()}
    return Page(write_site(tables(made), made, tmp_path / "site", **given_))


def test_the_index_draws_it_with_a_table_for_those_who_do_not_see_it(tmp_path):
    page = index(tmp_path, over_data_sets(BETTER))
    text = " ".join(page.texts)
    for wanted in ("Across data sets", "mean rank (1 is best)", "All with resnet18, bce", "1.35"):
        assert wanted in text, wanted
    regions = [a for _, a in page.tags if "Critical-difference" in a.get("aria-label", "")]
    assert [region["tabindex"] for region in regions] == ["0"], "a keyboard can scroll it"
    assert "2 to 3" in page.texts and "2.50" in page.texts
    assert [a["d"].count("M") for t, a in page.tags if a.get("class") == "same"] == [1]


def test_too_few_data_sets_say_why_and_draw_nothing(tmp_path):
    page = index(tmp_path, over_data_sets([row[:2] for row in BETTER]))
    text = " ".join(page.texts)
    assert "nothing can be said over data sets with fewer than 5" in text
    assert "Boards: data0, data1" in text and "Mean ranks as a table" not in text
    assert not [a for _, a in page.tags if a.get("class") in {"same", "stem"}]


def test_no_whole_board_of_ours_says_so(tmp_path):
    made = over_data_sets(BETTER)
    boards = [table.model_copy(update={"whole": False}) for table in tables(made)]
    site = write_site(
        boards,
        made,
        tmp_path / "site",
        results=tmp_path / "none",
        cache=tmp_path / "cache",
        catalogue=Catalogue(),
    )
    assert "No board here is of our own runs on the whole" in " ".join(Page(site).texts)


def test_names_in_the_drawing_never_become_markup(tmp_path):
    page = index(tmp_path, over_data_sets(BETTER, methods=[EVIL, "b", "c"]))
    drawn = page.texts.index(f"{EVIL} · 1.00")
    assert page.texts[drawn + 1] == f"{EVIL}, resnet18, bce", "its tooltip"
