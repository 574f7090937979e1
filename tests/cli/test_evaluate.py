"""``mlbench evaluate`` scores a checkpoint, labels matched by name; ``rescore`` records it."""

import json
import re
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
from safetensors.torch import save_file

import mlbench
from mlbench.boards.rows import tables
from mlbench.data.open import open_splits
from mlbench.engine.checkpoint import load
from mlbench.engine.evaluation import Evaluator
from mlbench.metrics.bootstrap import score
from mlbench.store import Store
from mlbench.types import NO_COSTS, Places, Settings
from mlbench_plugins.datasets.synthetic import NAMES
from mlbench_tools.scoring import evaluate
from mlbench_tools.scoring.evaluate import complete_options
from tests.engine import tiny
from tests.store.made import made_record
from tests.test_one_run import starved
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


def test_it_writes_a_record_of_another_tier(cli, ours, tmp_path, store):
    flags = ("--dataset", "synthetic", "--device", "cpu", "--results", tmp_path / "results")
    assert "recorded in" in cli("rescore", ours, *flags).ok("mAP").err
    (record,) = store.records()
    assert record.tier == "re-scored" and record.run_id == record.spec.run_id
    assert record.label_names == NAMES and record.test_images == 40
    assert record.efficiency.gmacs_head > 0 and "rescore" in record.command
    seen = store.predictions(record)
    scores, precisions = score(seen.logits, seen.targets)
    assert scores == record.scores
    assert precisions == pytest.approx(record.average_precision, rel=1e-7)
    (table,) = tables([record])
    assert table.tier == "re-scored" and table.name.endswith("-re-scored-published")
    cli("pack", record.run_id, "--out", "theirs.zip").ok()
    cli("verify", "theirs.zip").ok("0 findings", "settings: its authors trained it")
    assert mlbench.results(tmp_path / "results")["seconds"].isna().all()
    cli("card", ours, "--out", "card").ok()
    card = Path("card/README.md").read_text()
    assert "trained by its authors on" in card and not re.search("epochs|mlbench thresholds", card)
    cli("rescore", ours, *flags).ok()
    assert len(store.records()) == 1, "the same weights are the same record"
    weights = {name: value.clone() for name, value in load(ours).weights.items()}
    next(iter(weights.values())).add_(1)
    change(ours, weights)
    cli("rescore", ours, *flags).ok()
    assert len(store.records()) == 2, "other weights are another record"


def test_the_record_started_before_the_images_were_scored(cli, ours, tmp_path, monkeypatch, store):
    class Clock(datetime):
        hour_now = 1

        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 31, cls.hour_now, tzinfo=tz)

    def slow(*given, **options):
        Clock.hour_now = 2
        return predict(*given, **options)

    predict = Evaluator.predict
    monkeypatch.setattr(evaluate, "datetime", Clock)
    monkeypatch.setattr(Evaluator, "predict", slow)
    flags = ("--dataset", "synthetic", "--device", "cpu", "--results", tmp_path / "results")
    cli("rescore", ours, *flags).ok()
    (record,) = store.records()
    assert record.started == "2026-01-31T01:00:00+00:00"


def test_scores_are_kept_if_the_costs_do_not_fit_into_memory(cli, ours, monkeypatch, store):
    monkeypatch.setattr("mlbench.engine.cost.peak_memory", starved)
    cli("rescore", ours, "--dataset", "synthetic", "--device", "cpu").ok("mAP")
    (record,) = store.records()
    assert record.scores and record.efficiency is None and record.notes[-1] == NO_COSTS


def test_a_checkpoint_of_a_run_is_refused(cli, ours, tmp_path):
    change(ours, data="d" * 16)
    flags = ("--dataset", "synthetic", "--results", tmp_path / "results")
    done = cli("rescore", str(ours.parent)[:-1], *flags)  # as an id of a run, cut short
    assert done.code == 2 and "which has a record" in done.err
    change(ours, data="imported:" + "d" * 16, labels=tuple(SHUFFLED[:3]))
    cli("rescore", ours, *flags).failed("only 3 of the labels")
    assert not (tmp_path / "results").exists()
