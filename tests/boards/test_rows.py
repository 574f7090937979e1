from pathlib import Path

import pytest
from scipy import stats

from mlbench.boards import render
from mlbench.boards.rows import tables
from mlbench.boards.variants import options_by_loss
from mlbench.cli.show_boards import Boards
from mlbench.store import Store
from mlbench.types import Pretraining, SuiteError
from tests.store.made import made_cost, made_efficiency, made_record, made_scores


def only(records):
    (table,) = tables(records)
    return table


def test_identities_tracks_and_label_subsets_are_never_mixed():
    records = [made_record(), made_record(identity="voc2007-mini")]
    records.append(made_record(spec={"track": "controlled"}))
    for labels, data in ((("cat", "dog"), "a" * 16), (("cat", "cow"), "b" * 16)):
        few = {"labels": labels, "data": data}
        records.append(made_record(spec=few, identity="coco-mini-2-labels"))
    made = tables(records)
    assert len(made) == 5 and len({table.name for table in made}) == 5
    assert all(len(table.rows) == 1 for table in made)


def test_boards_of_one_name_are_told_apart_by_images_and_by_labels():
    made = tables([made_record(spec={"data": d}) for d in ("aaa-ccc", "bbb-ccc", "aaa-ddd")])
    names = {table.data: table.name for table in made}
    assert names["aaa-ddd"] == "coco-mini-images-ddd-probe"
    assert names["bbb-ccc"] == "coco-mini-images-ccc-labels-bbb-probe"
    assert len(set(names.values())) == len({table.title for table in made}) == 3


def test_unknown_editions_come_last_and_say_so():
    made = tables([made_record(identity="aaa-unknown-" + "0" * 16), made_record()])
    assert [(t.identity[:3], t.known) for t in made] == [("coc", True), ("aaa", False)]


def test_seeds_are_one_row_with_mean_and_sample_deviation():
    row = only([made_record(value=50.0 + s, spec={"seed": s}) for s in range(3)]).rows[0]
    assert (row.mAP, row.deviation, row.seeds) == (51.0, 1.0, 3)
    assert len(set(row.run_ids)) == 3


def test_one_seed_gives_a_row_its_bootstrap_interval_costs_and_command():
    scores = made_scores(50.0).model_copy(update={"mAP_low": 48.5, "mAP_high": 53.0})
    row = only([made_record(scores=scores)]).rows[0]
    assert (row.mAP, row.low, row.high, row.deviation, row.seeds) == (50, 48.5, 53, None, 1)
    assert row.gmacs == pytest.approx(2.0) and row.gmacs_head == 0.2 and row.parameters == 11.5
    assert row.commands[0].endswith("# commit 0123456789ab"), "of its first twelve digits"


def test_intervals_count_images_and_the_training_noise_of_the_board_for_every_row():
    """The bootstrap reaches 1 point to either side; two rows of 40 and 2 seeds vary by about 1."""
    values = [50 + (-1) ** seed * (39 / 40) ** 0.5 for seed in range(40)]
    many = [made_record("many", v, spec={"seed": s}) for s, v in enumerate(values)]
    two = [made_record("two", 60 + d * 0.5**0.5, spec={"seed": s}) for s, d in enumerate((1, -1))]
    table = only([*many, *two, made_record("one", 55.0)])
    assert table.training_deviation == pytest.approx(1)
    for row in table.rows:
        noise = 1 / row.seeds
        images = (1 / 1.959964) ** 2
        freedom = (images + noise) ** 2 / (noise**2 / 40)
        half = stats.t.ppf(0.975, freedom) * (images + noise) ** 0.5
        assert row.high - row.mAP == row.mAP - row.low == pytest.approx(half, rel=1e-4)
    by_seeds = sorted((row.seeds, row.high - row.low) for row in table.rows)
    assert by_seeds[0][1] > by_seeds[1][1] > by_seeds[2][1] > 2, "more seeds never remove images"


def test_an_interval_ends_where_map_does():
    records = [made_record(value=v, spec={"seed": s}) for s, v in enumerate((95.0, 99.5))]
    row = only([*records, made_record("low", 0.5)]).rows[0]
    assert row.high == 100 and only([*records, made_record("low", 0.5)]).rows[-1].low == 0


def test_a_diverged_seed_is_listed_and_not_averaged():
    bad = made_record(spec={"seed": 1}, status="diverged", scores=None, error="nan at step 7")
    table = only([made_record(value=50.0), bad])
    assert (table.rows[0].mAP, table.rows[0].seeds) == (50, 1)
    assert [(d.run_id, d.error) for d in table.diverged] == [(bad.run_id, "nan at step 7")]


def test_ranks_with_ties_at_two_decimals():
    values = {"a": 60.0, "b": 55.001, "c": 55.004, "d": 40.0}
    table = only([made_record(name, value) for name, value in values.items()])
    assert [(r.rank, r.method) for r in table.rows] == [(1, "a"), (2, "b"), (2, "c"), (4, "d")]


def test_the_number_of_processes_is_named_where_it_is_in_the_id():
    table = only([made_record(spec={"processes": n}) for n in (1, 2)])
    assert {row.variant for row in table.rows} == {"processes=1", "processes=2"}
    assert only([made_record(spec={"processes": 2})]).rows[0].variant == "processes=2"
    assert only([made_record()]).rows[0].variant == ""


def test_other_settings_are_another_row_and_the_variant_says_which():
    settings = [{"optimizer": {"lr": 1e-3}}, {"optimizer": {"lr": 1e-4}, "head_options": {"k": 2}}]
    records = [made_record(settings=s, value=50.0 - i) for i, s in enumerate(settings)]
    assert [row.variant for row in only([*records, made_record("gap", 10.0)]).rows] == [
        "optimizer.lr=0.001",
        "head_options.k=2, optimizer.lr=0.0001",
        "",
    ]


def test_titles_tell_rows_apart_that_differ_in_size_or_epochs_and_variants_leave_these_out():
    settings = [{"image_size": 448}, {"epochs": 8}, {"batch_size": 7}]
    records = [made_record(settings=s, value=50.0 - i) for i, s in enumerate(settings)]
    rows = only([*records, made_record("gap", 10.0)]).rows
    assert [row.title.removeprefix("ssgrl, resnet18, bce ") for row in rows] == [
        "batch_size=32, epochs=3, image_size=448",
        "batch_size=32, epochs=8, image_size=224",
        "batch_size=7, epochs=3, image_size=224",
        "gap, resnet18, bce",
    ]
    assert [row.variant for row in rows] == ["batch_size=32"] * 2 + ["batch_size=7", ""]


def speeds(record, *costs):
    (table,) = tables([record], costs=costs)
    (row,) = table.rows
    return {speed.place: speed for speed in row.speeds}


def test_a_speed_is_the_models_whatever_its_loss_seed_data_or_initial_bias():
    record = made_record()
    same = [
        made_record(spec={"seed": 1}),
        made_record(settings={"loss": "asl"}),
        made_record(identity="voc2007", spec={"dataset": "voc2007", "data": "e" * 16}),
        made_record(settings={"head_options": {"prior_bias": True}}),
    ]
    for other in same:
        (found,) = speeds(other, made_cost(record)).values()
        assert (found.ms, found.head_ms, found.ms_16) == (12.5, 2.5, 100)
        assert found.images_per_second == 160 and found.best_batch == 16 and found.remark == ""


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"head_options": {"classifier": "cosine"}}},
        {"settings": {"backbone": "resnet50"}},
        {"efficiency": made_efficiency(parameters_head=1)},
        {"efficiency": made_efficiency(image_size=448)},
        {"efficiency": made_efficiency(backbone_options={"timm_kwargs": {"pad_type": "same"}})},
        {"method": "gap"},
        {"label_names": ("cat", "dog"), "average_precision": (1.0, 2.0)},
        {"efficiency": None},
        {"settings": {"weights": "sha256:0123"}},
    ],
    ids=str,
)
def test_the_speed_of_another_model_is_not_taken(other):
    assert speeds(made_record(**other), made_cost(made_record())) == {}


def test_speeds_at_different_places_stay_apart():
    record = made_record()
    h200 = {"device": "NVIDIA H200", "threads": 0, "precision": "bf16"}
    costs = [
        made_cost(record, 40),
        made_cost(record, 30, runtime="compiled"),
        made_cost(record, 2, bare=1.0, runtime="cuda-graph", **h200),
    ]
    assert {place: speed.ms for place, speed in speeds(record, *costs).items()} == {
        "AMD EPYC, 1 thread, fp32, eager": 40,
        "AMD EPYC, 1 thread, fp32, compiled": 30,
        "NVIDIA H200, bf16, cuda-graph": 2,
    }


def test_a_model_measured_on_a_busy_machine_is_compared_by_its_ratio():
    """Alone, `gap` took 11 ms; beside other work `ssgrl` took 25, with a backbone of 20."""
    quiet, busy = made_record("gap"), made_record("ssgrl")
    costs = [made_cost(quiet, 11, bare=10), made_cost(busy, 25, bare=20, lost=0.6)]
    (found,) = speeds(busy, *costs).values()
    assert (found.ms, found.head_ms, found.remark) == (12.5, 2.5, "busy")


def test_boards_are_chosen_by_their_whole_name_or_else_its_beginning():
    editions = (("voc2007", "1" * 16), ("voc2007-mini", "2" * 16))
    records = [made_record(identity=name, spec={"data": data}) for name, data in editions]
    made = tables([*records, made_record(spec={"track": "published"})])
    boards = Boards(Store(Path("results")), [], made)
    asked = {name: {t.name for t in boards.select(name, None)} for name in ("voc2007", "voc", None)}
    assert asked == {
        "voc2007": {"voc2007-probe"},
        "voc": {"voc2007-probe", "voc2007-mini-probe"},
        None: {table.name for table in made},
    }
    assert [t.name for t in boards.select(None, "published")] == ["coco-mini-published"]
    for nothing in (("oco", None), ("voc2007", "published")):
        with pytest.raises(SuiteError, match="no record in results matches"):
            boards.select(*nothing)


def test_scores_that_started_from_weights_of_such_labels_have_a_board_of_their_own():
    plain = Pretraining(data="ImageNet-1k")
    coco = Pretraining(data="ImageNet-1k, then COCO", saw=("coco",))
    records = [made_record(pretraining=plain), made_record("gap", 60.0, pretraining=coco)]
    own, apart = tables(records)
    assert apart.name == own.name.replace("-probe", "-saw-coco-probe")
    assert "from weights that saw labels of coco" in apart.heading
    assert "Initial weights: ImageNet-1k, then COCO." in render.notes(apart)
    assert [len(table.rows) for table in (own, apart)] == [1, 1]


def test_options_that_differ_by_loss_name_the_losses():
    specs = [
        made_record(
            "gap", settings={"loss": loss, "head_options": {"prior_bias": loss != "asl", "k": 1}}
        ).spec
        for loss in ("asl", "bce", "focal")
    ]
    assert options_by_loss(specs) == ["gap: prior_bias=False (asl), prior_bias=True (bce, focal)"]
