"""A whole run, interrupted, short of memory, or repeated to the bit."""

import json
import os
import signal
from importlib.metadata import version

import numpy as np
import pytest
import torch

from mlbench import plan, suite
from mlbench.engine import cost
from mlbench.engine.checkpoint import load
from mlbench.engine.distributed import World
from mlbench.engine.model import MultiLabelModel
from mlbench.engine.resume import FILES
from mlbench.engine.signals import stoppable
from mlbench.engine.train import finish
from mlbench.one_run import run
from mlbench.types import BatchMemoryError, HeadOutput, Interrupted, Places
from tests.engine import tiny


class Stopping(tiny.Quiet):
    """Asks the run to stop after its first epoch, as a pre-empted one or at the end of a budget."""

    def __init__(self, number):
        self.number = number

    def epoch(self, log):
        os.kill(os.getpid(), self.number)


@pytest.fixture
def run_one(tmp_path, cache):
    def call(
        progress=None,
        where="results",
        places=(),
        track=None,
        short="",
        neighbours=0,
        images=None,
        more=(),
        **settings,
    ):
        small = {"image_size": 32, "epochs": 2, "batch_size": 8, "augmentation": [{"name": "flip"}]}
        fields = {
            "methods": ("gap",),
            "losses": ("bce",),
            "dataset_options": {"synthetic": {"train_images": 40, "test_images": 20, "size": 32}},
            "settings": small | settings,
            "track": track or "controlled",
            **dict(more),
        }
        located = Places(results=tmp_path / where, cache=cache, workers=1, **dict(places))
        planned = plan.make_plan(suite.make_suite(fields), located)
        assert not planned.refused, planned.refused[0].reason
        (spec,) = planned.missing
        given = spec, located, World(), progress or tiny.Quiet(), "", neighbours
        record, predictions = finish(run(*given, images=images, short=short))
        return record, predictions, located.results / "runs" / spec.run_id

    return call


def test_a_run_that_was_stopped_goes_on_to_the_same_predictions(run_one):
    _, expected, _ = run_one(where="whole")
    for number in (signal.SIGTERM, signal.SIGALRM):
        with stoppable(), pytest.raises(Interrupted):
            run_one(Stopping(number), where=f"{number}")
        record, found, folder = run_one(where=f"{number}")
        assert (found.logits == expected.logits).all()
        assert record.notes[-1] == "resumed after step 5" and record.resumed == (5,)
        assert [entry.epoch for entry in record.epochs] == [1, 2]
        assert record.seconds["training"] > sum(entry.seconds for entry in record.epochs) - 0.01
        assert (folder / FILES[0]).exists(), "until the record is written"
        steps = [line.partition(",")[0] for line in (folder / "losses.csv").read_text().split()]
        assert steps == ["step", *map(str, range(1, 11))]


@pytest.mark.parametrize(
    ("place", "value", "short"),
    [
        ("mlbench.numbers.NUMBERS", 99, ""),
        ("mlbench.numbers.source_digest", lambda _: 16 * "0", ""),
        ("mlbench.one_run.version", lambda _: "0", ""),
        ("mlbench.one_run.version", version, "out of memory"),
    ],
)
def test_the_state_of_other_code_or_of_other_parts_of_batches_is_not_used(
    run_one, monkeypatch, place, value, short
):
    with stoppable(), pytest.raises(Interrupted):
        run_one(Stopping(signal.SIGTERM))
    monkeypatch.setattr(place, value)
    record, *_ = run_one(short=short)
    assert record.resumed == () and len(record.epochs) == 2
    assert not short or "with grad_accumulation 2 at the same batch size" in record.notes[0]


def test_a_run_says_when_it_counts_labels_and_notes_what_is_unusual(run_one, monkeypatch):
    told = []
    monkeypatch.setattr(tiny.Quiet, "phase", lambda self, text: told.append(text))
    few = {"dataset_options": {"synthetic": {"train_images": 40, "test_images": 6, "size": 32}}}
    average = {"ema_decay": 0.99, "ema_warmup": False}
    mixing = {"name": "splicemix"}
    record, _, folder = run_one(epochs=1, mixing=mixing, more=few, **average)
    assert told[:3] == ["data", "label context", "model"]
    assert "splicemix adds images to batches: a step costs 1.25 times as much" in record.notes[-3]
    assert "of 12 labels have no AP and are left out" in record.notes[-2]
    assert "96% of the moving average that was scored still are" in record.notes[-1]
    info = load(folder / "checkpoint.safetensors").info
    assert info.preprocessing.mean
    assert (info.commit, info.pretraining) == (record.commit, record.pretraining)


@pytest.fixture
def batches(monkeypatch):
    """The images of every training step."""
    seen, real = [], MultiLabelModel.forward

    def forward(model, images, *more):
        seen.extend([images] if model.training else [])
        return real(model, images, *more)

    monkeypatch.setattr(MultiLabelModel, "forward", forward)
    return seen


def test_a_run_short_of_memory_takes_at_most_a_part_for_each_image(run_one, batches):
    parts = {"batch_size": 5, "grad_accumulation": 3, "freeze_bn": True}
    record, *_ = run_one(short="out of memory", epochs=1, **parts)
    assert record.status == "ok" and "grad_accumulation 5 at" in record.notes[0]
    assert {len(images) for images in batches} == {1}


def test_a_seed_draws_the_order_of_images_and_a_precision_is_that_of_training(run_one, batches):
    asked = {"seeds": 0}, {"seeds": 1}, {"seeds": 1, "precision": "bf16"}
    records = [run_one(epochs=1, augmentation=[], more=more)[0] for more in asked]
    first, second, third = batches[::5]
    assert not torch.equal(first, second) and torch.equal(second, third)
    assert records[1].epochs[0].loss != records[2].epochs[0].loss
    assert records[2].efficiency.precision == "bf16"


def test_a_rehearsal_trains_on_a_few_images_though_all_have_some_label(run_one):
    record, *_ = run_one(images=2, epochs=1, freeze_bn=True)
    assert (record.status, record.train_images, record.test_images) == ("ok", 2, 2)


def starved(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Process 4 has 2.00 GiB memory in use.")


@pytest.mark.parametrize(
    ("lost", "when"), [("make_models", "before"), ("Evaluator.__call__", "after")]
)
def test_want_of_memory_outside_training_names_remedies(run_one, monkeypatch, lost, when):
    monkeypatch.setattr(f"mlbench.one_run.{lost}", starved)
    remedies = "give fewer --jobs, as other processes use 2,048 MiB; or a smaller --image-size"
    with pytest.raises(BatchMemoryError, match=f"on cpu {when} its training; {remedies}"):
        run_one(epochs=1)


def test_a_trained_run_keeps_its_scores_if_its_costs_do_not_fit(run_one, monkeypatch):
    monkeypatch.setattr(cost, "peak_memory", starved)
    record, found, _ = run_one(epochs=1)
    assert record.status == "ok" and record.scores and record.checkpoint and len(found.logits)
    assert record.efficiency is None and "costs were not measured for want of" in record.notes[-1]


def test_a_run_whose_last_step_diverges_has_a_record(run_one):
    lost = {"batch_size": 40, "optimizer": {"name": "sgd", "lr": 1e30}, "grad_clip": 0.0}
    record, found, _ = run_one(epochs=1, schedule={"name": "constant"}, **lost)
    assert record.status == "diverged" and found is None and len(record.epochs) == 1
    assert "the scores became" in record.error and "at step 1;" in record.error


def test_a_selected_epoch_whose_test_scores_are_not_finite_has_a_record(run_one, monkeypatch):
    def broken(model, images, known=None):
        output = real(model, images, known)
        return output if model.training or len(images) != 20 else HeadOutput(output.logits / 0)

    real = MultiLabelModel.forward
    monkeypatch.setattr(MultiLabelModel, "forward", broken)
    record, found, _ = run_one(selection="validation")
    assert record.status == "diverged" and found is None and len(record.epochs) == 2
    assert "the scores became" in record.error and record.validation_images not in (0, 20)


def test_every_evaluation_in_smaller_batches_is_noted_once(run_one, monkeypatch):
    def narrow(model, images, known=None):
        if len(images) > 15:
            raise torch.OutOfMemoryError
        return real(model, images, known)

    real = MultiLabelModel.forward
    monkeypatch.setattr(MultiLabelModel, "forward", narrow)
    plain = {"backbone": "resnet18", "weights": "none"}
    record, *_ = run_one(selection="test", track="published", **plain)
    assert len(record.epochs) == 2 and sum("in batches of" in note for note in record.notes) == 1


def test_the_epoch_of_each_fold_is_selected_on_its_validation_part(run_one):
    folds = [{"holdout": 0.5, "holdout_fold": fold} for fold in (0, 1)]
    runs = [run_one(more=fold, selection="validation")[:2] for fold in folds]
    assert len({key for _, found in runs for key in found.keys}) == 40, "every training image"
    for record, found in runs:
        held, left = set(found.validation.keys), record.train_images
        assert held.isdisjoint(found.keys) and len(held) + len(found.keys) + left == 40
        assert record.selected_epoch and "-holdout-0.5" in record.identity
        assert record.identity.endswith("-and-validation")


def test_deterministic_is_recorded_and_ends_with_the_run(run_one):
    places = {"deterministic": True, "activation_checkpointing": True}
    parts = {"grad_accumulation": 2, "freeze_bn": False}
    record, found, folder = run_one(epochs=1, places=places | {"profile": True}, **parts)
    _, plain, _ = run_one(epochs=1, where="plain", **parts)
    np.testing.assert_allclose(found.logits, plain.logits, rtol=1e-3, atol=1e-3)
    assert record.environment["deterministic"]
    profile = json.loads((folder / "profile.json").read_text())
    assert profile["steps"] == 5 and profile["parts"]["backward"]["ms"] > 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_backbone_that_cannot_recompute_says_so_where_it_is_trained(run_one, install):
    source = "from tests.engine.tiny import Backbone\ndef make(**options): return Backbone()"
    install("acme", source, "[mlbench.backbones]\nplain = acme:make")
    asked = {"places": {"activation_checkpointing": True}, "backbone": "plain", "weights": "none"}
    asked |= {"epochs": 1, "augmentation": []}
    notes = [run_one(track=track, **asked)[0].notes for track in ("controlled", "probe")]
    assert [sum("plain cannot, and did not" in one for one in each) for each in notes] == [1, 0]
