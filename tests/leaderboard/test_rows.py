import pytest

from mlbench.leaderboard import tables
from tests.store.made import made_efficiency, made_record


def only(records):
    (table,) = tables(records)
    return table


def test_identities_tracks_and_label_subsets_are_never_mixed():
    records = [
        made_record(),
        made_record(identity="voc2007-mini"),
        made_record(spec={"track": "controlled"}),
        made_record(
            spec={"labels": ("cat", "dog"), "data": "a" * 16}, identity="coco-mini-2-labels"
        ),
        made_record(
            spec={"labels": ("cat", "cow"), "data": "b" * 16}, identity="coco-mini-2-labels"
        ),
    ]
    made = tables(records)
    assert len(made) == 5 and len({table.name for table in made}) == 5
    assert all(len(table.rows) == 1 for table in made)


def test_unknown_editions_come_last_and_say_so():
    made = tables([made_record(identity="aaa-unknown-" + "0" * 16), made_record()])
    assert [(t.identity[:3], t.known) for t in made] == [("coc", True), ("aaa", False)]


def test_seeds_are_one_row_with_mean_and_sample_deviation():
    row = only([made_record(value=50.0 + s, spec={"seed": s}) for s in range(3)]).rows[0]
    assert (row.mAP, row.deviation, row.seeds) == (51.0, 1.0, 3)
    assert (row.low, row.high) == (None, None) and len(set(row.run_ids)) == 3


def test_one_seed_carries_the_bootstrap_interval():
    row = only([made_record(value=50.0)]).rows[0]
    assert (row.mAP, row.low, row.high, row.deviation, row.seeds) == (50, 49, 51, None, 1)


def test_a_diverged_seed_is_listed_and_not_averaged():
    bad = made_record(spec={"seed": 1}, status="diverged", scores=None, error="nan at step 7")
    table = only([made_record(value=50.0), bad])
    assert (table.rows[0].mAP, table.rows[0].seeds) == (50, 1)
    assert [(d.run_id, d.error) for d in table.diverged] == [(bad.run_id, "nan at step 7")]


def test_a_board_of_diverged_runs_only():
    table = only([made_record(status="diverged", scores=None, efficiency=None, error="nan")])
    assert table.rows == () and len(table.diverged) == 1


def test_ranks_with_ties_at_two_decimals():
    values = {"a": 60.0, "b": 55.001, "c": 55.004, "d": 40.0}
    table = only([made_record(name, value) for name, value in values.items()])
    assert [(r.rank, r.method) for r in table.rows] == [(1, "a"), (2, "b"), (2, "c"), (4, "d")]


def test_other_settings_are_another_row_and_the_variant_says_which():
    settings = [{"optimizer": {"lr": 1e-3}}, {"optimizer": {"lr": 1e-4}, "head_options": {"k": 2}}]
    records = [made_record(settings=s, value=50.0 - i) for i, s in enumerate(settings)]
    table = only([*records, made_record("gap", 10.0)])
    assert [row.variant for row in table.rows] == [
        "optimizer.lr=0.001",
        "head_options.k=2, optimizer.lr=0.0001",
        "",
    ]


def test_image_size_and_epochs_have_columns_of_their_own():
    table = only([made_record(), made_record(settings={"image_size": 448, "epochs": 9})])
    assert {(r.image_size, r.epochs, r.variant) for r in table.rows} == {(224, 3, ""), (448, 9, "")}


def test_costs_are_of_the_whole_model():
    row = only([made_record()]).rows[0]
    assert row.gmacs == pytest.approx(2.0) and row.gmacs_head == 0.2 and row.parameters == 11.5


def test_latencies_of_different_places_stay_apart():
    h100 = "NVIDIA H100"
    records = [
        made_record(efficiency=made_efficiency(median_ms=10), spec={"seed": 0}),
        made_record(efficiency=made_efficiency(median_ms=20), spec={"seed": 1}),
        made_record(efficiency=made_efficiency(threads=1, median_ms=40), spec={"seed": 2}),
        made_record(
            efficiency=made_efficiency(h100, median_ms=1),
            environment={"device": h100},
            spec={"seed": 3},
        ),
    ]
    assert only(records).rows[0].latency == (
        ("AMD EPYC, 1 thread, fp32", 40),
        ("AMD EPYC, 2 threads, fp32", 15),
        ("NVIDIA H100, fp32", 1),
    )


def test_rows_carry_command_and_commit():
    row = only([made_record()]).rows[0]
    assert row.commands == ("mlbench run --plugins ssgrl  # commit 0123456789ab",)


def test_the_order_of_records_changes_nothing():
    records = [made_record(m, spec={"seed": s}) for m in ("a", "b") for s in (0, 1)]
    assert tables(records) == tables(records[::-1])
