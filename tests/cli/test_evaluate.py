"""``mlbench evaluate``: the scores of a checkpoint, and labels matched by name."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
from safetensors.torch import save_file

from mlbench.data.open import open_splits
from mlbench.engine.checkpoint import load
from mlbench.store import Store
from mlbench.types import Places, Settings
from mlbench_plugins.datasets.synthetic import NAMES
from mlbench_tools.scoring import evaluate
from mlbench_tools.scoring.evaluate import complete_options
from tests.engine import tiny
from tests.store.made import made_record
from tests.tools.weights.released import FEW, SHUFFLED, change, imported


@pytest.fixture
def ours(cli, tmp_path):
    return imported(cli, tmp_path)


def test_a_run_and_its_checkpoint_score_the_same(cli, small, tmp_path):
    """Every digit of the record comes back from the checkpoint."""
    flags = ("--suite", small, "--device", "cpu", "--results", tmp_path)
    cli("run", "--plugins", "ssgrl", *flags).ok()
    (record,) = tmp_path.glob("records/**/*.json")
    record = json.loads(record.read_text())
    flags = ("--dataset", "synthetic", "--device", "cpu", "--predictions", tmp_path / "p.npz")
    found = cli("evaluate", tmp_path / record["checkpoint"], *flags, "--json").ok().json
    assert found["identity"] == record["identity"] and found["images"] == record["test_images"]
    assert found["scores"] == pytest.approx(record["scores"], abs=1e-6)
    assert list(found["average_precision"].values()) == pytest.approx(record["average_precision"])
    with np.load(tmp_path / "p.npz") as kept:
        assert kept["logits"].shape == kept["targets"].shape == (found["images"], len(NAMES))
        assert tuple(kept["names"]) == NAMES


def test_images_are_decoded_where_the_model_computes(monkeypatch):
    predict = "mlbench.engine.evaluation.Evaluator.predict"
    monkeypatch.setattr(predict, lambda evaluator, _: evaluator.source)
    info = SimpleNamespace(settings=Settings(head="gap", decoder="nvjpeg"))
    places = Places(results=Path(), cache=Path(), device="cuda:0")
    model, index = SimpleNamespace(network=None, info=info), tiny.index()
    source = evaluate._predict(model, index, places, None, 1)
    assert (source.transform.view.decoder, str(source.device)) == ("nvjpeg", "cuda:0")


def test_labels_are_matched_by_name(cli, ours, tmp_path, monkeypatch):
    monkeypatch.setattr("mlbench.cli.progress.SILENCE", 0.005)
    kept = ("--predictions", tmp_path / "p.npz")
    done = cli("evaluate", ours.parent, "--dataset", "synthetic", *kept).ok()
    assert "evaluation" in done.err, "where it is, whenever it was silent for long"
    assert ": 40 test images, 12 labels" in done.out and "mAP" in done.out
    with np.load(tmp_path / "p.npz") as kept:
        assert kept["names"].tolist() == SHUFFLED
        shuffled = kept["targets"]
    straight = open_splits("synthetic", FEW, None, tmp_path / "c").test.targets
    np.testing.assert_array_equal(shuffled, straight[:, [NAMES.index(name) for name in SHUFFLED]])


@pytest.mark.parametrize("trained_on", ["coco", "coco2014"])
@pytest.mark.parametrize("asked", [("coco", {"year": 2014}), ("coco2014", {}), ("coco", {})])
def test_authors_options_hold_on_every_year_of_coco(trained_on, asked):
    fields = {"dataset": trained_on, "dataset_options": {"unlabelled": True}}
    spec = made_record("ssgrl", spec=fields).spec
    assert complete_options(spec, *asked)[1]["unlabelled"]
    others = spec.model_copy(update={"method": "msrn", "dataset": "coco"})
    assert not complete_options(others, "coco2014", {})[1]["unlabelled"]
    assert not complete_options(spec, asked[0], {**asked[1], "unlabelled": False})[1]["unlabelled"]


def test_options_are_laid_over_the_checkpoints_and_what_does_not_fit_is_refused_by_name(cli, ours):
    asked = ("evaluate", ours, "--dataset", "synthetic")
    assert cli(*asked, "--option", "test_images=30", "--json").json["images"] == 30
    cli(*asked, "--option", "year=2014").failed("unknown option 'year' of dataset synthetic")
    whole = load(ours).weights
    change(ours, {k: v for k, v in whole.items() if not k.endswith("queries")})
    cli(*asked).failed("head.queries")
    change(ours, whole, names=["lion", *SHUFFLED[1:]])
    cli(*asked).failed("synthetic lacks lion", f"the model lacks {SHUFFLED[0]}")


def test_a_checkpoint_of_some_labels_is_scored_on_those(cli, suite, tmp_path):
    flags = ("--device", "cpu", "--results", tmp_path)
    cli("run", "--suite", suite(labels=["sun", "apple", "car"]), *flags).ok()
    (file,) = tmp_path.glob("runs/*/checkpoint.safetensors")
    found = cli("evaluate", file, "--dataset", "synthetic", "--json").json
    assert list(found["average_precision"]) == ["sun", "apple", "car"]


def test_a_model_whose_backbone_started_from_a_file_stands_alone(cli, suite, tmp_path):
    """The file's header changes the architecture; the model is used without the file."""
    start = tmp_path / "start.safetensors"
    weights = timm.create_model("test_resnet", act_layer="gelu", num_classes=0).state_dict()
    save_file(weights, start, metadata={"timm_kwargs": "act_layer=gelu", "mean": "0.3,0.4,0.5"})
    flags = ("--weights", start, "--device", "cpu", "--results", tmp_path)
    cli("run", "--suite", suite(backbones=["timm:test_resnet"]), *flags).ok()
    start.unlink()
    (file,) = tmp_path.glob("runs/*/checkpoint.safetensors")
    (record,) = Store(tmp_path).records()
    info = load(file).info
    assert info.backbone_options == {"timm_kwargs": {"act_layer": "gelu"}}
    assert info.identity == record.identity and info.scores == record.scores
    found = cli("evaluate", file, "--dataset", "synthetic", "--json").json
    assert found["scores"]["mAP"] == record.scores.mAP


def test_a_file_of_another_format_is_read_by_the_plugin_of_its_ending(cli, ours, install, tmp_path):
    source = f"""
from pathlib import Path
from mlbench.build import open_model
def read(file):
    assert file.name == "model.acme"
    model = open_model(Path({str(ours)!r}))
    return model._replace(network=lambda images: model.network(images))  # no module of torch
"""
    install("acme", source, "[mlbench.formats]\nacme = acme:read")
    (tmp_path / "model.acme").write_text("anything")
    flags = ("--dataset", "synthetic", "--json")
    straight, foreign = (cli("evaluate", file, *flags).json for file in (ours, "model.acme"))
    assert foreign["scores"] == straight["scores"]
    assert "acme" in cli("list", "--kind", "format").out
