"""``mlbench measure`` and what a run measures of its models."""

import re

import pytest

from mlbench import registry
from mlbench.store import Store
from mlbench.tracks import name_defaults, settle
from mlbench.types import Network
from tests.store.made import made_cost, made_efficiency, made_record

SMALL = ("--image-size", "32", "--seconds", "0.1")
RUN = (
    *("run", "--backbones", "timm:test_resnet", "--weights", "none", "--image-size", "32"),
    *("--epochs", "1", "--set", "dataset_options={train_images: 40, test_images: 20, size: 32}"),
)


def costs(folder):
    found, problems = Store(folder).read_costs()
    assert problems == []
    return {cost.network.head: cost for cost in found}


def test_a_run_measures_its_models_and_measure_only_what_a_board_lacks(
    cli, tmp_path, monkeypatch, store
):
    for name, value in (("MATRIX_SECONDS", 0.1), ("LARGEST", 32)):
        monkeypatch.setattr(f"mlbench_tools.costs.measuring.{name}", value)
    done = cli(*RUN, "--plugins", "gap,gmp", "--set", "measure=false")
    assert done.code == 0 and costs(tmp_path / "results") == {}, done.err
    assert "2 of 2 rows have no latency" in done.out.replace("\n", " ")
    cli("run", *RUN[1:], "--plugins", "gap").ok()
    first = costs(tmp_path / "results")["gap"]
    assert [timing.batch_size for timing in first.timings[:2]] in ([1, 16], [1, first.best_batch])
    monkeypatch.setattr("mlbench.cli.progress.SILENCE", 0.02)
    done = cli("measure", "--seconds", "0.1")
    assert done.code == 0 and re.search(r"batch size 16 \d+%, 0:\d\d:\d\d left", done.err), done.err
    after = costs(tmp_path / "results")
    assert set(after) == {"gap", "gmp"} and after["gap"] == first, "not measured again"
    (record, _) = store.records()
    assert Network.of(record) == after[record.spec.settings.head].network
    assert "not measured" not in cli("leaderboard").out
    cli("measure", "--seconds", "0.1", "--again").ok()
    assert costs(tmp_path / "results")["gap"].command.endswith("--again")


def test_named_models_are_those_of_a_board(cli, tmp_path):
    card = registry.find("dataset", "synthetic").load().card
    small = {"backbone": "timm:test_resnet", "image_size": 32}
    settings = name_defaults(settle("probe", "ssgrl", "synthetic", card, [small])).model_dump()
    counted = made_efficiency(image_size=32, backbone_options={}, parameters_backbone=0)
    record = made_record("ssgrl", settings=settings, efficiency=counted)
    flags = ("--plugins", "ssgrl,timm:test_resnet", "--track", "probe", "--labels", "3")
    (measured,) = cli("measure", *flags, *SMALL, "--json").json
    board = Network.of(record).model_dump(exclude={"parameters"})
    assert board == Network(**measured["network"]).model_dump(exclude={"parameters"})
    assert measured["runtime"] == "eager" and measured["threads"] == 1
    for timing in measured["timings"]:
        assert timing["ratio_low"] <= timing["ratio"] <= timing["ratio_high"]


def test_a_model_that_cannot_be_built_as_recorded_is_named_and_the_others_are_measured(cli, store):
    fields = {"settings": {"backbone": "timm:test_resnet", "weights": "none"}}
    store.write(made_record("gap", **fields))
    store.write(made_record("gmp", settings={"weights": "sha256:0123"}))
    done = cli("measure", "--seconds", "0.1")
    done.failed("has 372,979 parameters and not 11,500,000", code=1)
    assert "1 run: old records do not say how the backbone was built" in done.err


DAMAGE = {
    "truncated": lambda text: text[:200],
    "edited": lambda text: text.replace('"ratio": 1.25', '"ratio": 1.05'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_measurement_is_named_and_hides_no_other(cli, tmp_path, damage):
    store, records = Store(tmp_path / "results"), [made_record("gap"), made_record("gmp")]
    for record in records:
        store.write(record)
    good, bad = [store.write_cost(made_cost(record)) for record in records]
    bad.write_text(damage(bad.read_text()))
    done = cli("leaderboard")
    assert done.code == 0 and str(bad.name) in done.err.replace("\n", "")
    assert "12.5" in done.out and good.exists()
