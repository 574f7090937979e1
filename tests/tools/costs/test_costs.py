"""``mlbench profile``: heads apart from backbones, against records and counts by hand."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mlbench import registry
from mlbench.build import build
from mlbench.contracts.made_up import made_up_context
from mlbench.engine.cost import measure
from mlbench.store import Store
from mlbench.types import Places, Settings
from mlbench_tools.costs.counting import count_head
from mlbench_tools.costs.profile import count_heads

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
