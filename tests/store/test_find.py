"""Runs are found by the beginning of their ids, as boards print them."""

import pytest

from mlbench.store import Store
from mlbench.types import StoreError
from tests.store.made import made_record


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    found = Store(tmp_path_factory.mktemp("results"))
    for seed in range(40):  # more than there are first digits
        found.write(made_record(("gap", "gmp")[seed % 2], spec={"seed": seed}))
    return found


def test_the_beginning_of_one_id_finds_it_and_that_of_several_is_refused(store):
    ids = [record.run_id for record in store.records()]
    for run_id in ids:
        for length in range(1, len(run_id) + 1):
            begun = run_id[:length]
            several = [other for other in ids if other.startswith(begun)]
            if several == [run_id]:
                assert store.find(begun).run_id == run_id
            else:
                with pytest.raises(StoreError, match=f"is the beginning of {len(several)} runs"):
                    store.find(begun)


@pytest.mark.parametrize("text", ["", "zz", "*", "../gap", "0123456789abcdef0"])
def test_what_begins_no_id_finds_nothing(store, text):
    assert store.find(text) is None


def test_a_superseded_record_is_no_second_run(tmp_path):
    store = Store(tmp_path)
    store.write(made_record())
    newest = made_record(started="2026-02-01T00:00:00+00:00")
    store.write(newest)
    assert store.find(newest.run_id[:4]) == newest


def test_a_damaged_record_is_named(tmp_path):
    store = Store(tmp_path)
    record = made_record()
    store.write(record)
    store.file(record).write_text("{}")
    with pytest.raises(StoreError, match=f"{record.run_id}.json: not a record"):
        store.find(record.run_id[:4])
