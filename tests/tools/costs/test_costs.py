"""``mlbench profile`` against records and counts by hand, ``measure``, and what a run measures."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mlbench import registry
from mlbench.build import build
from mlbench.contracts.made_up import made_up_context
from mlbench.engine.cost import measure
from mlbench.store import Store
from mlbench.tracks import name_defaults, settle
from mlbench.types import Network, Places, Settings
from mlbench_tools.costs.counting import count_head
from mlbench_tools.costs.profile import count_heads
from tests.store.made import made_cost, made_efficiency, made_record

SMALL = ("--backbones", "timm:test_resnet", "--image-size", "64")
CHANNELS = 96
"""Of the last map of timm:test_resnet."""
RESULTS = Path(__file__).parents[3] / "results"


def heads(found):
    """(method, labels) -> its part of the JSON."""
    (only,) = found["backbones"]
    return {(head["method"], head["labels"]): head for head in only["heads"]}


def test_a_linear_layer_is_counted_as_by_hand(cli):
    found = cli("profile", "--plugins", "gap", "--classes", "20,500", "--json", *SMALL).ok().json
    for (_, labels), head in heads(found).items():
        assert head["cost"]["parameters"] == (CHANNELS + 1) * labels
        assert head["cost"]["gmacs"] == CHANNELS * labels / 1e9
        assert head["refusal"] == ""


def test_the_head_of_ssgrl_is_as_large_as_its_papers():
    # 92.27 M with 80 labels, of which ResNet-101 without its classifier has 42.50 M.
    recipe = registry.find("recipe", "ssgrl").load()
    assert count_head(recipe.settings, 80).parameters / 1e6 == pytest.approx(49.77, abs=0.02)


@pytest.mark.parametrize("method", ["ssgrl", "msrn", "query2label"])
def test_the_counts_are_those_of_the_model_of_a_run(method):
    settings = Settings(
        backbone="timm:test_resnet",
        weights="none",
        head=method,
        head_options={"hidden_dim": 64} if method == "query2label" else {},
        image_size=64,
    )
    model, _ = build(settings, made_up_context(6, 300), Places(results=".", cache="."))
    cost = measure(model, image_size=64, precision="fp32", device=torch.device("cpu"))
    (found,) = count_heads({method: settings}, [settings.backbone], [6], 64)
    (head,) = found.heads
    backbone = cost.parameters_backbone, cost.gmacs_backbone
    assert (found.cost.parameters, found.cost.gmacs) == backbone
    assert (head.cost.parameters, head.cost.gmacs) == (cost.parameters_head, cost.gmacs_head)


@pytest.mark.parametrize("method", sorted({f.name for f in RESULTS.glob("records/*/*")}))
def test_the_totals_are_those_of_the_committed_records(method):
    record = Store(RESULTS).find(max(RESULTS.glob(f"records/*/{method}/*.json")).stem)
    spec, cost = record.spec, record.efficiency
    place = [spec.settings.backbone], [len(record.label_names)], spec.settings.image_size
    (trunk,) = count_heads({spec.method: spec.settings}, *place)
    (head,) = trunk.heads
    total = trunk.cost.parameters + head.cost.parameters
    assert total == cost.parameters_backbone + cost.parameters_head
    assert trunk.cost.gmacs == pytest.approx(cost.gmacs_backbone, rel=1e-9)
    assert head.cost.gmacs == pytest.approx(cost.gmacs_head, rel=1e-9)


def test_costs_grow_with_the_labels_up_to_9605(cli):
    flags = ("--plugins", "ssgrl,grl,ml_decoder,csra", "--classes", "20,80,500,9605", "--json")
    found = heads(cli("profile", *flags, *SMALL).json)
    for method in ("ssgrl", "grl", "ml_decoder", "csra"):
        for less, more in pairwise([found[method, n]["cost"] for n in (20, 80, 500, 9605)]):
            assert less["parameters"] < more["parameters"] and less["gmacs"] < more["gmacs"]
    # Work on pairs of labels grows with their square; one query a group of labels does not.
    growth = {
        m: found[m, 9605]["cost"]["gmacs"] / found[m, 500]["cost"]["gmacs"]
        for m in ("ssgrl", "ml_decoder")
    }
    assert growth["ssgrl"] > 9605 / 500 > growth["ml_decoder"]


def test_a_head_that_cannot_serve_a_case_is_refused_alone(cli):
    flags = ("--plugins", "msrn,gap", "--classes", "20,500", *SMALL)
    found = heads(cli("profile", *flags, "--json").json)
    assert found["msrn", 20]["cost"] and found["gap", 500]["cost"]
    assert found["msrn", 500]["cost"] is None
    assert "billion weights" in found["msrn", 500]["refusal"]
    cli("profile", *flags).ok("- msrn at 500 labels: msrn: with 500 labels")


WRONG = {
    "profile --plugins ssgrll": "unknown plugin 'ssgrll'; did you mean ssgrl",
    "profile --plugins gap --backbones resnet1": "unknown backbone 'resnet1'",
    "profile --plugins gap,timm:test_vit --image-size 7": "takes no images of 7",
    "profile --plugins gap,asl": "asl costs nothing at inference",
    "profile --plugins gap --classes 20,many": "--classes 20,many: give numbers",
    "measure --device cpu --runtime eagre": "unknown runtime 'eagre'; did you mean eager",
    "measure --device cpu --runtime cuda-graph": "cuda-graph needs CUDA",
    "measure --device cpu": "no record in results has a model to measure",
    "measure --device cpu --plugins gap --results /dev/null": "/dev/null cannot be written (Not",
    "measure --device cpu --plugins gap,asl": "asl costs nothing at inference",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_flags_are_named(cli, command):
    cli(*command.split()).failed(WRONG[command])


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
    fast = ("--image-size", "32", "--seconds", "0.1")
    (measured,) = cli("measure", *flags, *fast, "--json").json
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
