"""Calibration, thresholds and expectations: against truths that are known."""

import resource
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

import mlbench
from mlbench.data.open import open_splits
from mlbench.store import Store
from mlbench.types import SuiteError
from mlbench_tools.deploy.calibration import (
    Target,
    assert_enough,
    best_threshold,
    expect,
    fit,
    fit_sigmoid,
)
from mlbench_tools.scoring.ranking import wilson


def drawn(images, slope, offset, seed=0):
    """Logits, and labels that are present with probability sigmoid(slope * logit + offset)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, 4))
    return logits, (rng.random(logits.shape) < expit(slope * logits + offset)).astype(np.int8)


def test_the_true_calibration_is_found():
    logits, targets = drawn(20_000, 0.5, -1.5)
    for c in range(4):
        slope, offset = fit_sigmoid(logits[:, c], targets[:, c] == 1)
        assert slope == pytest.approx(0.5, abs=0.03) and offset == pytest.approx(-1.5, abs=0.06)
        steep, _ = fit_sigmoid(logits[:, c] * 1e-3, targets[:, c] == 1)
        assert steep == pytest.approx(slope * 1e3, rel=1e-3)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=20))
def test_the_threshold_is_the_best_of_all(pairs):
    """Against every threshold that there is; scores tie often."""
    scores = np.array([score / 6 for score, _ in pairs])
    present = np.array([one for _, one in pairs])
    if not present.any():
        present[0] = True

    def at(threshold):
        said = scores >= threshold
        hits = (said & present).sum()
        return hits / max(said.sum(), 1), hits / present.sum()

    every = [at(t) for t in np.unique(scores)]
    p, r = at(best_threshold(scores, present, Target("f1")))
    best = max(2 * p * r / max(p + r, 1e-9) for p, r in every)
    assert 2 * p * r / max(p + r, 1e-9) == pytest.approx(best)
    p, r = at(best_threshold(scores, present, Target("precision", 0.7)))
    reached = [(recall, precision) for precision, recall in every if precision >= 0.7]
    assert (r, p) == max(reached) if reached else (p, r) == max(every)
    assert at(best_threshold(scores, present, Target("recall", 0.7))) == max(
        (precision, recall) for precision, recall in every if recall >= 0.7
    )


def test_what_is_expected_holds_on_new_images():
    """The precision of thresholds for 90 % lies in its interval on images drawn afterwards."""
    logits, targets = drawn(3000, 1.0, 0.0)
    refit = lambda x, y: fit(x, y, Target("precision", 0.9), per_label=True)  # noqa: E731
    (precision, recall), *labels = expect(logits, targets, refit)
    new, truth = drawn(100_000, 1.0, 0.0, seed=1)
    said = refit(logits, targets).present(new)
    true = truth[said].mean(), said[truth == 1].mean()
    assert abs(true[0] - precision.value) < 0.02 and abs(true[1] - recall.value) < 0.03
    assert len(labels) == 4 and recall.of == targets.sum()
    assert precision.low < 0.9 < precision.high


def test_labels_with_few_images_share_and_unknown_labels_are_left_out():
    logits, targets = drawn(500, 1.0, 0.0)
    targets[:, 0] = 0
    targets[:5, 0] = 1
    targets[250:, 1] = -1
    found = fit(logits, targets, Target("f1"), per_label=True)
    assert found.shared == (True, False, False, False)
    known = fit_sigmoid(logits[:250, 1], targets[:250, 1] == 1)
    assert found.calibration[1] == pytest.approx(known)
    few = np.zeros_like(targets)
    few[:10, 1] = 1
    assert_enough(few)
    everything, *_ = expect(logits, few, partial(fit, target=Target("f1"), per_label=True))
    assert everything[1].of == 10
    few[0, 1] = -1
    with pytest.raises(SuiteError, match=r"9 present and 1990 absent .* hold out more images"):
        assert_enough(few)


def test_wilsons_interval():
    """Of 81 among 263: E. B. Wilson's form gives 0.2553 to 0.3662 (Newcombe 1998, table I)."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.fixture(scope="module")
def validated(small_run):
    """A run that chose its epoch on a validation part."""
    many = {"train_images": 400, "test_images": 20, "size": 32}
    return small_run(settings={"selection": "validation"}, dataset_options=many)


def test_the_model_gets_its_thresholds(cli, validated, pictures):
    cli("thresholds", validated, "--target", "recall=0.9", "--per-label").ok("all labels")
    found = cli("thresholds", validated, "--target", "recall=0.9", "--json").json
    model = mlbench.load(validated, device="cpu")
    assert model.thresholds == found["thresholds"]
    assert model.info.calibration is not None and len(model.info.notes) == 1
    assert 0.8 < found["expected"]["all labels"]["recall"]["value"] <= 1
    (one,) = model([pictures / "0.jpg"])
    said = {n for n, score in one.scores.items() if score >= found["thresholds"][n]}
    assert set(one.above) == said
    cli("evaluate", validated, "--dataset", "synthetic", "--json").ok()  # its logits are the same


def test_what_cannot_be_stored_is_printed(cli, validated):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        done = cli("thresholds", validated)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    done.failed("checkpoint.safetensors cannot be written (", "; give write permission there")
    assert "all labels" in done.out and "stored in" not in done.err


def test_a_target_out_of_reach_is_remarked_and_the_test_images_judge(cli, validated):
    record = Store(validated.parent.parent).find(validated.name)
    predictions = Store(validated.parent.parent).predictions(record)
    held_out, truth = predictions.validation, predictions.targets == 1
    found = cli("thresholds", validated, "--target", "precision=1", "--per-label", "--json").json
    model = mlbench.load(validated, device="cpu")
    slope, offset = np.array(model.info.calibration).T
    at = np.array(model.info.thresholds)
    said = expit(slope * held_out.logits + offset) >= at
    wrong = (said & (held_out.targets == 0)).any(axis=0)
    assert set(found["missed"]) <= {n for n, w in zip(record.label_names, wrong, strict=True) if w}
    assert found["missed"], "a label whose highest score is wrong"
    said = expit(slope * predictions.logits + offset) >= at
    every = found["test"]["all labels"]
    assert every["recall"]["value"] == pytest.approx(said[truth].mean())
    assert every["precision"]["of"] == said.sum()
    shown = cli("thresholds", validated, "--target", "precision=1", "--per-label").out
    assert "precision=1 is out of reach, and this is the nearest, for: " in shown
    assert "On the test images, all labels: precision" in shown


def test_a_run_that_held_nothing_out_is_refused(cli, trained):
    cli("thresholds", trained).failed("--set selection=validation", "--folds 5")
    for text in ("f2", "precision=2", "recall", "precision=high"):
        assert "give f1, precision=0.95" in cli("thresholds", trained, "--target", text).err


def test_folds_predict_every_training_image_without_having_seen_it(cli, tmp_path, cache, store):
    many = {"train_images": 120, "test_images": 20, "size": 32}
    fields = {"settings": {"epochs": 1, "image_size": 32}, "dataset_options": many}
    table = mlbench.run(["gap"], results="results", cache=cache, track="probe", **fields)
    run = tmp_path / "results" / "runs" / table["run_id"][0]
    plain = mlbench.load(run).network.state_dict()
    (first,) = store.records()

    done = cli("thresholds", run, "--folds", "3", "--json").ok()
    folds = Store(tmp_path / "results" / "folds")
    parts = [folds.predictions(record).keys for record in folds.records()]
    assert len(parts) == 3 and all(len(part) > 20 for part in parts)
    train = open_splits("synthetic", many, None, cache).train
    assert sorted(key for part in parts for key in part) == sorted(train.keys)
    for record in folds.records():
        assert record.train_images + record.test_images == 120
        changed = {"data", "holdout", "holdout_fold"}
        assert record.spec.model_dump(exclude=changed) == first.spec.model_dump(exclude=changed)

    model = mlbench.load(run)
    assert model.thresholds == done.json["thresholds"]
    assert model.info.notes == ("thresholds for f1 chosen on 120 held-out images (of 3 folds)",)
    state = model.network.state_dict()
    assert all((state[name] == tensor).all() for name, tensor in plain.items())
    again = cli("thresholds", run, "--folds", "3", "--json")
    assert again.json == done.json and len(folds.records()) == 3
    assert len(store.records()) == 1, "folds are on no board of the store"


def test_the_cost_of_folds_is_said_where_features_are_not_cached(cli, validated, monkeypatch):
    def stop(*_):
        raise SuiteError("stopped")

    monkeypatch.setattr("mlbench_tools.deploy.folds.predict_folds", stop)
    done = cli("thresholds", validated, "--folds", "4")
    assert "4 trainings of the controlled track" in done.err and "stopped" in done.err
