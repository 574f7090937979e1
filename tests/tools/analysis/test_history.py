from datetime import UTC, datetime

import pytest

from mlbench.boards.rows import tables
from mlbench.types import SuiteError
from mlbench_tools.analysis.history import as_of, changes, moment
from tests.boards.scored import write
from tests.store.made import made_record


def at(day, **fields):
    return {"started": f"2026-01-{day:02d}T12:00:00+00:00", **fields}


def test_dates_times_and_commits():
    records = [made_record(**at(day, commit=f"abcdef{day}")) for day in (1, 2)]
    assert moment("2026-01-02", records) == datetime(2026, 1, 2, tzinfo=UTC)
    assert moment("2026-01-02T03:00:00+02:00", records).astimezone(UTC).hour == 1
    assert as_of(moment("abcdef1", records), records[:1], []) == records[:1]
    assert as_of(moment("2026-01-01", records), records[:1], []) == []
    for wrong in ("yesterday", "abcde", "fffffff"):
        with pytest.raises(SuiteError, match=f"{wrong}"):
            moment(wrong, records)


def test_changes_row_by_row():
    steady = made_record("gap", 50.0, **at(1))
    old = made_record("msrn", 40.0, **at(1))
    redone = made_record("msrn", 60.0, **at(3))
    fresh = made_record("ssgrl", 30.0, **at(3))
    lost = made_record("gmp", 20.0, **at(1))
    broken = made_record("gmp", status="diverged", scores=None, error="nan", **at(3))
    records, superseded = [steady, redone, fresh, broken], [old, lost]
    then = as_of(moment("2026-01-02", records), records, superseded)
    assert {r.run_id for r in then} == {steady.run_id, old.run_id, lost.run_id}
    found = changes(tables(then), tables(records), {old.run_id, lost.run_id})
    assert [line for _, line in found] == [
        "scored again: msrn, resnet18, bce: 40.00 -> 60.00, rank 2 -> 1 "
        f"(superseded: {old.run_id})",
        "rank 1 -> 2: gap, resnet18, bce",
        "new: ssgrl, resnet18, bce: 30.00, rank 3",
        f"gone: gmp, resnet18, bce: was 20.00, rank 3 (superseded: {lost.run_id})",
    ]
    assert changes(tables(records), tables(records)) == []


def test_what_was_taken_in_today_is_new_today_whenever_it_was_run():
    steady = made_record("gap", 50.0, **at(1))
    taken = made_record("msrn", 60.0, **at(1), added="2026-01-05T00:00:00+00:00", commit="feedbeef")
    records = [steady, taken]
    assert as_of(moment("2026-01-04", records), records, []) == [steady]
    assert as_of(moment("2026-01-06", records), records, []) == records
    assert moment("feedbee", records) == datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)


def test_another_seed_is_a_new_score_of_its_row():
    first = made_record("gap", 50.0, **at(1))
    second = made_record("gap", 52.0, spec={"seed": 1}, **at(3))
    assert changes(tables([first]), tables([first, second])) == [
        ("coco-mini-probe", "scored again: gap, resnet18, bce: 50.00 -> 51.00, rank 1 -> 1")
    ]


def test_a_row_is_not_new_because_its_board_has_a_longer_name_now():
    old, other = (made_record("gap", spec={"data": f"{'d' * 16}-{n * 16}"}) for n in "ab")
    assert changes(tables([old]), tables([old, other])) == [
        (f"coco-mini-images-{'b' * 16}-probe", "new: gap, resnet18, bce: 50.00, rank 1")
    ]


def test_what_changed_since_a_day(cli, store):
    write(store, "gap", 1.5, noise=1)
    write(store, "gmp", 1.0, noise=2)
    redone = write(store, "gmp", 1.2, noise=3, started="2026-03-01T00:00:00+00:00")
    write(store, "msrn", 3.0, noise=4, started="2026-03-02T00:00:00+00:00", commit="feedbeef99")
    ended = cli("history", "2026-02-01").ok("new: msrn", "scored again: gmp")
    assert f"(superseded: {redone.run_id})" in ended.out and "rank 1 -> 2: gap" in ended.out
    assert "nothing changed" in cli("history", "feedbee").out
    assert not cli("history", "lately").failed("lately: neither").out
