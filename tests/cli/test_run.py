"""The command line from end to end, on the synthetic set and a tiny backbone."""

import csv
import json
import os
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest

from mlbench.data.open import open_splits
from mlbench.store import Store
from mlbench_tools.fetch.statistics import label_statistics
from tests.cli.manifests import TINY
from tests.executors.test_local import until

DIVERGING = {"gap": {"optimizer": {"name": "sgd", "lr": 1.0e37}}}


@pytest.fixture
def pair(suite):
    """Write a suite of two methods."""
    return partial(suite, {"epochs": 2}, plugins=["gap", "gmp"])


@pytest.fixture
def small(pair):
    return pair()


def records(folder):
    return {r.spec.method: r for r in Store(folder).records()}


def positives(name, record, root, cache):
    """What `mlbench data stats` counts in the training part."""
    counted = label_statistics(name, open_splits(name, record.spec.dataset_options, root, cache))
    assert counted.cooccurrence.nbytes == 4 * len(counted.labels) ** 2, "no Python numbers"
    return tuple(label.train for label in counted.labels)


def test_a_matrix_is_run_ranked_and_not_run_again(cli, small, tmp_path, store):
    first = cli("run", "--suite", small).ok()
    found = records(tmp_path / "results")
    assert set(found) == {"gap", "gmp"}
    for record in found.values():
        assert record.status == "ok" and record.test_images == 31
        assert record.efficiency.gmacs_backbone > record.efficiency.gmacs_head > 0
        predictions = store.predictions(record)
        assert predictions.logits.shape == (31, 12) and len(set(predictions.keys)) == 31
        assert (tmp_path / "results" / record.checkpoint).exists()
        assert record.train_positives == positives("synthetic", record, None, tmp_path)
    assert "gap" in first.out and "mAP" in first.out
    boards = tmp_path / "results" / "leaderboards"
    assert len(list(boards.glob("*.md"))) == 2 and len(list(boards.glob("*.csv"))) == 1
    cli("run", "--suite", small).ok("Nothing is missing: 2 runs")
    assert cli("leaderboard").out.count("gmp") >= 1


def test_a_loss_that_diverges_is_recorded_and_the_rest_goes_on(cli, pair, tmp_path):
    small = pair(per_method=DIVERGING)
    ended = cli("run", "--suite", small).failed(code=1)
    found = records(tmp_path / "results")
    assert found["gap"].status == "diverged" and "at step" in found["gap"].error
    assert found["gap"].seconds["training"] > 0
    assert found["gmp"].status == "ok"
    assert "gap" in ended.err and "at step" in ended.err and "log.txt" in ended.err
    log = tmp_path / "results" / "runs" / found["gap"].run_id / "log.txt"
    assert "at step" in log.read_text()
    cli("run", "--suite", small).failed("--retry-diverged", code=1)


def test_the_probe_track_makes_maps_once(cli, small, own, store):
    cli("run", "--suite", small, "--track", "probe", "--plugins", "gap,asl,bce").ok()
    found = store.records()
    assert len(found) == 2 and {r.spec.settings.loss for r in found} == {"asl", "bce"}
    assert len(list((own / "features").iterdir())) == 2, "train and test"


def test_only_named_labels_and_as_many_images_as_asked_for_take_part(cli, suite, store):
    few = ("dataset_options.train_images=40", "dataset_options.synthetic.test_images=9")
    flags = [part for text in few for part in ("--set", text)]
    cli("run", "--suite", suite(labels=["sun", "moon"]), *flags).ok()
    (record,) = store.records()
    assert record.label_names == ("sun", "moon") and len(record.average_precision) == 2
    assert (record.train_images, record.test_images) == (40, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plugins", "sgrl"), "did you mean ssgrl"),
        (("--plugins", "gap", "--datasets", "voc2007"), "--data DIR"),
        (("--plugins", "gap", "--datasets", "voc2007", "--data", "nowhere"), "nowhere"),
        (("--plugins", "gap", "--weights", "no.pth"), "no.pth cannot be read"),
        (("--plugins", "gap", "--words", "no.npz"), "no.npz cannot be read"),
        (("--plugins", "gap", "--device", "tpu9"), "is not a device"),
        (
            ("--plugins", "gap", "--device", "cpu", "--devices", "0"),
            "--devices needs --device cuda, not cpu; leave out --devices, or give that",
        ),
        (("--plugins", "gap", "--suite", "no.yaml"), "no.yaml cannot be read"),
        (("--plugins", "gap", "--seeds", "one"), "seeds.0 = 'one'"),
        (("--plugins", "gap", "--set", "label_noise.keep=40"), "command line: label_noise.keep"),
        (("--plugins", "gap", "--set", "label_noise.kep=0.4"), "did you mean keep"),
        (("--plugins", "gap", "--set", "label_noise.flip_which=present"), "flip_which needs flip"),
        (("--plugins", "gap", "--set", "graph=identiy"), "did you mean identity"),
        (("--plugins", "gap", "--words", "a.npz,b.npz"), "are 2 files"),
        (("--plugins", "gap", "--set", "dataset_options.train_image=5"), "mean train_images"),
        (("--plugins", "gap", "--set", "dataset_options.size"), "--set optimizer.lr=3e-4"),
        (("--plugins", "gap", "--epochs", "0"), "--epochs"),
        ((), "name at least one"),
    ],
)
def test_wrong_use_ends_with_code_2_and_says_why(cli, arguments, message):
    ended = cli("run", *arguments).failed()
    assert message in " ".join((ended.err + ended.out).split())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ["sun", "unicorn"]}, "label 'unicorn': synthetic lacks it"),
        ({"track": "probe", "settings": {"frozen_stages": 0}}, "--track controlled"),
        ({"settings": {"head_options": {"clasifier": "linear"}}}, "did you mean classifier"),
        ({"holdout": 1.5}, "small.yaml: holdout = 1.5"),
        ({"vary": {"graph": ["identiy"]}}, "did you mean identity"),
    ],
)
def test_wrong_suites_are_refused_before_anything_runs(cli, suite, tmp_path, fields, message):
    assert message in "".join(cli("run", "--suite", suite(**fields)).failed().err.splitlines())
    assert not (tmp_path / "results" / "records").exists()


def test_a_store_that_cannot_be_written_is_reported_before_training(cli, small, tmp_path):
    (tmp_path / "file").write_text("")
    ended = cli("run", "--suite", small, "--results", tmp_path / "file" / "results")
    assert ended.code == 2 and "--results" in ended.err and "epoch" not in ended.err


def test_the_papers_recipes_run(cli, suite, tmp_path):
    axes = {"plugins": ["ssgrl", "msrn"], "backbones": ["timm:test_resnet"]}
    few = {"synthetic": {"train_images": 16, "test_images": 8, "size": 32}}
    axes |= {"track": "published", "dataset_options": few, "keep": "none"}
    published = suite({"weights": "none", "image_size": 64}, **axes)
    cli("run", "--suite", published).ok()
    found = records(tmp_path / "results")
    assert found["ssgrl"].spec.settings.preprocessing.resize == 71
    assert found["msrn"].epochs[0].aux["group"] > 0


@pytest.mark.parametrize(("dataset", "images"), [("voc2007", 944), ("coco", 2089)])
def test_real_pictures(cli, real_data, tmp_path, dataset, images, store):
    data = real_data / "coco-mini" if dataset == "coco" else real_data
    few = ("--track", "probe", "--set", "batch_size=32", "--set", "keep=none")
    cli("run", *TINY, "--datasets", dataset, "--data", data, *few).ok()
    (record,) = store.records()
    assert (record.identity, record.train_images) == (f"{dataset}-mini", images)
    assert record.train_positives == positives(dataset, record, data, tmp_path)


def losses(results, record):
    lines = (results / "runs" / record.run_id / "losses.csv").read_text().splitlines()
    return np.array([float(row["loss"]) for row in csv.DictReader(lines)])


def test_one_and_three_processes_agree_and_have_ids_of_their_own(suite, tmp_path, cli):
    """12 steps with trained batch norms, in uneven parts, of mean losses and one that adds up.

    AdamW would hide a gradient that is a multiple of the right one.
    """
    sgd = {"name": "sgd", "lr": 1.0e-4}
    narrow = {"intermediary_dim": 32, "output_dim": 32}
    per_method = {
        "gmp": {"loss": "asl", "loss_options": {"reduction": "sum"}, "optimizer": sgd},
        "ssgrl": {"head_options": narrow, "mutual_weight": 0.5},
    }
    trained = {"freeze_bn": False, "batch_size": 13, "optimizer": {"lr": 1.0e-4}}
    two = suite(trained, plugins=["gmp", "ssgrl"], per_method=per_method)
    found = {}
    for processes in (1, 3):
        results = tmp_path / f"by-{processes}"
        asked = ("--suite", two, "--epochs", 3, "--device", "cpu", "--gpus", processes)
        cli("run", *asked, "--results", results).ok()
        found[processes] = results, records(results)
    (one, alone), (results, others) = found.values()
    for method, record in alone.items():
        other = others[method]
        assert other.environment["processes"] == 3
        assert other.spec == record.spec.model_copy(update={"processes": 3})
        curve, other_curve = losses(one, record), losses(results, other)
        assert len(curve) == 12
        np.testing.assert_allclose(other_curve, curve, rtol=1e-5, atol=1e-5)
        predictions = Store(one).predictions(record)
        other_predictions = Store(results).predictions(other)
        assert other_predictions.keys == predictions.keys
        # Not 1e-5: rounding grows with every step, so the number is in the id.
        np.testing.assert_allclose(other_predictions.logits, predictions.logits, atol=1e-4)
        for name, value in record.scores:
            assert getattr(other.scores, name) == pytest.approx(value, abs=1e-6), name


def test_several_processes_refuse_with_one_message(cli):
    ended = cli("run", "--plugins", "sgrl", "--gpus", 2, "--device", "cpu")
    said = ended.out + ended.err
    assert ended.code == 2 and said.count("did you mean ssgrl") == 1, said


def test_a_run_that_fails_on_several_processes_leaves_the_others_alone(pair, tmp_path, cli):
    three = pair(plugins=["gap", "csra", "gmp"], per_method=DIVERGING | {"csra": {"batch_size": 1}})
    flags = ("--suite", three, "--gpus", 2, "--device", "cpu")
    cli("run", *flags).failed("give at most --processes 1", code=1)
    found = records(tmp_path / "results")
    assert found["gap"].status == "diverged" and found["gmp"].status == "ok"
    assert "csra" not in found


def test_a_killed_matrix_is_completed_by_the_next_run(small, tmp_path, begin, cli):
    with begin("run", "--suite", small, start_new_session=True) as going:
        # Killed some time after the first line about a run.
        for line in going.stdout:
            if "[1/2]" in line:
                break
        time.sleep(0.3)
        os.killpg(going.pid, signal.SIGKILL)
    for file in (tmp_path / "results").glob("records/**/*.json"):
        json.loads(file.read_text())
    cli("run", "--suite", small).ok()
    assert {r.status for r in records(tmp_path / "results").values()} == {"ok"}


def test_interrupting_keeps_whole_records_and_says_so(cli, small, tmp_path):
    # What a shell starts in the background ignores the interrupt, and hands that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    third = '"epoch":3'

    def interrupt():
        logs = (tmp_path / "results" / "runs").glob
        until(lambda: any(third in log.read_text() for log in logs("*/log.txt")), 300)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        ended = cli("run", "--suite", small, "--epochs", 500)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    ended.failed("repeat the command to run the rest", code=130)
    assert not list((tmp_path / "results").glob("records/**/*.json"))
