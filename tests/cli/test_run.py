"""The command line from end to end, on the synthetic set and a tiny backbone."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mlbench.data.open import open_splits
from mlbench.store import Store
from mlbench_tools.fetch.statistics import label_statistics

SMALL = """
plugins: [gap, gmp]
seeds: [0]
dataset_options: {synthetic: {train_images: 64, test_images: 31, size: 32}}
settings: {image_size: 32, epochs: 2, batch_size: 16, freeze_bn: true}
"""


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


def records(folder):
    return {r.spec.method: r for r in Store(folder).records()}


def positives(name, record, root, cache):
    """What `mlbench data stats` counts in the training part."""
    counted = label_statistics(name, open_splits(name, record.spec.dataset_options, root, cache))
    return tuple(label.train for label in counted.labels)


@pytest.mark.slow
def test_training_positives_of_photographs_are_those_of_the_statistics(cli, real_data, tmp_path):
    ended = cli(
        *("run", "--plugins", "gap", "--datasets", "voc2007", "--data", real_data),
        *("--track", "probe", "--backbones", "timm:test_resnet", "--weights", "none"),
        *("--image-size", "32", "--epochs", "1", "--set", "keep_checkpoints=false"),
    )
    assert ended.code == 0, ended.err
    [record] = Store(tmp_path / "results").records()
    assert record.train_positives == positives("voc2007", record, real_data, tmp_path)
    assert sum(record.train_positives) > record.train_images


def test_a_matrix_is_run_ranked_and_not_run_again(cli, small, tmp_path):
    first = cli("run", "--suite", small)
    assert first.code == 0, first.err
    found = records(tmp_path / "results")
    assert set(found) == {"gap", "gmp"}
    for record in found.values():
        assert record.status == "ok" and record.test_images == 31
        assert record.efficiency.gmacs_backbone > record.efficiency.gmacs_head > 0
        assert {one.batch_size for one in record.efficiency.latency} == {1, 16}
        predictions = Store(tmp_path / "results").predictions(record)
        assert predictions.logits.shape == (31, 12) and len(set(predictions.keys)) == 31
        assert (tmp_path / "results" / record.checkpoint).exists()
        assert record.train_positives == positives("synthetic", record, None, tmp_path)
    assert "gap" in first.out and "mAP" in first.out
    boards = tmp_path / "results" / "leaderboards"
    assert len(list(boards.glob("*.md"))) == 2 and len(list(boards.glob("*.csv"))) == 1
    second = cli("run", "--suite", small)
    assert second.code == 0 and "Nothing is missing: 2 runs" in second.out
    assert cli("leaderboard").out.count("gmp") >= 1


def test_a_dry_run_says_what_would_run_and_runs_nothing(cli, small, tmp_path):
    ended = cli("run", "--suite", small, "--dry-run", "--seeds", "0,1")
    assert ended.code == 0 and ended.out.count("would run") == 4
    assert not (tmp_path / "results").exists()


def test_a_loss_that_diverges_is_recorded_and_the_rest_goes_on(cli, small, tmp_path):
    with small.open("a") as file:
        file.write("per_method: {gap: {optimizer: {name: sgd, lr: 1.0e+37}}}\n")
    ended = cli("run", "--suite", small)
    assert ended.code == 1
    found = records(tmp_path / "results")
    assert found["gap"].status == "diverged" and "at step" in found["gap"].error
    assert found["gap"].seconds["training"] > 0
    assert found["gmp"].status == "ok"
    assert "gap" in ended.err and "at step" in ended.err and "log.txt" in ended.err
    log = tmp_path / "results" / "runs" / found["gap"].run_id / "log.txt"
    assert "at step" in log.read_text()
    again = cli("run", "--suite", small)
    assert again.code == 1 and "--retry-diverged" in again.err


def test_the_probe_track_makes_maps_once(cli, small, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "own"))
    assert cli("run", "--suite", small, "--track", "probe", "--plugins", "gap,asl,bce").code == 0
    found = Store(tmp_path / "results").records()
    assert len(found) == 2 and {r.spec.settings.loss for r in found} == {"asl", "bce"}
    assert len(list((tmp_path / "own" / "features").iterdir())) == 2, "train and test"


def test_only_named_labels_take_part(cli, small, tmp_path):
    with small.open("a") as file:
        file.write("labels: [sun, moon]\n")
    assert cli("run", "--suite", small, "--plugins", "gap").code == 0
    (record,) = Store(tmp_path / "results").records()
    assert record.label_names == ("sun", "moon") and len(record.average_precision) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plugins", "sgrl"), "did you mean ssgrl"),
        (("--plugins", "gap", "--datasets", "voc2007"), "--data DIR"),
        (("--plugins", "gap", "--datasets", "voc2007", "--data", "nowhere"), "nowhere"),
        (("--plugins", "gap", "--weights", "no.pth"), "no.pth cannot be read"),
        (("--plugins", "gap", "--words", "no.npz"), "no.npz cannot be read"),
        (("--plugins", "gap", "--device", "tpu9"), "is not a device"),
        (("--plugins", "gap", "--suite", "no.yaml"), "no.yaml cannot be read"),
        (("--plugins", "gap", "--seeds", "one"), "seeds.0 = 'one'"),
        (("--plugins", "gap", "--set", "holdout=2"), "holdout"),
        (("--plugins", "gap", "--epochs", "0"), "--epochs"),
        ((), "name at least one"),
    ],
)
def test_wrong_use_ends_with_code_2_and_says_why(cli, arguments, message):
    ended = cli("run", *arguments)
    assert ended.code == 2
    assert message in " ".join((ended.err + ended.out).split())


def test_a_label_that_the_data_set_lacks(cli, small):
    with small.open("a") as file:
        file.write("labels: [sun, unicorn]\n")
    ended = cli("run", "--suite", small)
    assert ended.code == 2 and "label 'unicorn': synthetic lacks it" in ended.err


def test_the_probe_track_refuses_what_it_could_not_do(cli, small):
    with small.open("a") as file:
        file.write("track: probe\nper_method: {gap: {frozen_stages: 0}}\n")
    ended = cli("run", "--suite", small)
    assert ended.code == 2 and "--track controlled" in ended.err


def test_a_store_that_cannot_be_written_is_said_before_training(cli, small, tmp_path):
    (tmp_path / "file").write_text("")
    ended = cli("run", "--suite", small, "--results", tmp_path / "file" / "results")
    assert ended.code == 2 and "--results" in ended.err and "epoch" not in ended.err


def test_an_unknown_option_of_a_head_is_refused_before_anything_runs(cli, small, tmp_path):
    with small.open("a") as file:
        file.write("per_method: {gap: {head_options: {clasifier: linear}}}\n")
    ended = cli("run", "--suite", small, "--plugins", "gap")
    assert ended.code == 2 and "did you mean classifier" in ended.err
    assert not (tmp_path / "results" / "records").exists()


def test_the_papers_recipes_run(cli, small, tmp_path):
    with small.open("a") as file:
        file.write("track: published\nbackbones: ['timm:test_resnet']\n")
    text = small.read_text().replace("freeze_bn: true", "weights: none")
    small.write_text(text.replace("plugins: [gap, gmp]", "plugins: [ssgrl, msrn]"))
    ended = cli("run", "--suite", small, "--image-size", 64)
    assert ended.code == 0, ended.err
    found = records(tmp_path / "results")
    assert found["ssgrl"].spec.settings.preprocessing.resize == 71
    assert found["msrn"].epochs[0].aux["group"] > 0


@pytest.fixture
def coco(tmp_path):
    """Twelve pictures in COCO's layout."""
    root = tmp_path / "coco"
    generator = np.random.default_rng(0)
    for first, split in ((1, "train2017"), (7, "val2017")):
        (root / split).mkdir(parents=True)
        images = [{"id": i, "file_name": f"{i:012}.jpg"} for i in range(first, first + 6)]
        for one in images:
            pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / one["file_name"])
        numbers = range(first, first + 6)
        annotations = [{"id": i, "image_id": i, "category_id": 3 * (i % 2) + 1} for i in numbers]
        categories = [{"id": 1, "name": "person"}, {"id": 4, "name": "tea pot"}]
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        file.write_text(json.dumps(content))
    return root


TINY = ("--plugins", "gap", "--datasets", "coco", "--backbones", "timm:test_resnet")
TINY += ("--weights", "none", "--image-size", 32, "--epochs", 1, "--set", "batch_size=3")


def test_an_unknown_edition_is_named_so(cli, coco, tmp_path):
    ended = cli("run", *TINY, "--data", coco)
    assert ended.code == 0, ended.err
    (record,) = Store(tmp_path / "results").records()
    assert record.identity.startswith("coco-unknown-")
    assert record.label_names == ("person", "tea pot") and record.train_images == 6


def test_a_truncated_image_is_named_before_training(cli, coco, tmp_path):
    file = coco / "train2017" / "000000000004.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    ended = cli("run", *TINY, "--data", coco)
    assert ended.code == 1 and "000000000004.jpg" in ended.err and "truncated" in ended.err
    assert "epoch 1" not in ended.err and not list(tmp_path.glob("results/records/**/*.json"))


def test_detection_results_instead_of_instances(cli, coco):
    file = coco / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps([{"image_id": 1, "category_id": 1, "score": 0.5}]))
    ended = cli("run", *TINY, "--data", coco)
    assert ended.code == 2 and "instances_train2017.json" in ended.err
    assert "detection results" in ended.err


def test_weights_of_another_architecture(cli, coco, tmp_path):
    save_file({"conv.weight": torch.ones(3, 3)}, tmp_path / "other.safetensors")
    arguments = [*TINY, "--data", coco, "--weights", tmp_path / "other.safetensors"]
    arguments.remove("none")
    arguments.remove("--weights")
    ended = cli("run", *arguments)
    # told when the matrix is planned, before anything runs
    assert ended.code == 2 and "other.safetensors" in ended.err and "conv.weight" in ended.err


@pytest.mark.parametrize("dataset", ["voc2007", "coco"])
def test_real_pictures(cli, real_data, tmp_path, dataset):
    data = real_data / "coco-mini" if dataset == "coco" else real_data
    arguments = [*TINY, "--data", data, "--epochs", 1, "--set", "batch_size=32"]
    arguments[3] = dataset
    ended = cli("run", *arguments, "--track", "probe", "--set", "keep_checkpoints=false")
    assert ended.code == 0, ended.err
    (record,) = Store(tmp_path / "results").records()
    assert record.identity == f"{dataset}-mini"
    assert record.train_images == (2089 if dataset == "coco" else 944)


def mlbench(folder, cache, *arguments, **more):
    environment = os.environ | {"MLBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mlbench", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **more,
    )


def losses(results, record):
    lines = (results / "runs" / record.run_id / "losses.csv").read_text().splitlines()
    return np.array([float(row["loss"]) for row in csv.DictReader(lines)])


def test_one_two_and_three_processes_agree(small, tmp_path, cache):
    """20 steps of the same global batches, of a loss that is a mean and of one that adds up."""
    text = small.read_text().replace("[gap, gmp]", "[gap, gmp, ssgrl, msrn]")
    small.write_text(
        text + "per_method:\n"
        "  gmp: {loss: asl, loss_options: {reduction: sum}, optimizer: {lr: 1.0e-4}}\n"
        "  msrn: {head_options: {classifier: elementwise}, optimizer: {lr: 1.0e-4}}\n"
        "  ssgrl: {head_options: {intermediary_dim: 32, output_dim: 32}, optimizer: {lr: 1.0e-4}}\n"
    )
    found = {}
    for processes in (1, 2, 3):
        results = tmp_path / f"by-{processes}"
        arguments = ["--suite", small, "--set", "batch_size=12", "--epochs", 4, "--device", "cpu"]
        arguments += ["--gpus", processes, "--results", results]
        with mlbench(tmp_path, cache, "run", *arguments) as going:
            output, _ = going.communicate(timeout=300)
        assert going.returncode == 0, output.decode()
        found[processes] = results, records(results)
    one, alone = found.pop(1)
    for processes, (results, others) in found.items():
        for method, record in alone.items():
            other = others[method]
            assert other.environment["processes"] == processes
            assert other.run_id == record.run_id
            curve, other_curve = losses(one, record), losses(results, other)
            assert len(curve) == 20
            np.testing.assert_allclose(other_curve, curve, rtol=1e-5, atol=1e-5)
            predictions = Store(one).predictions(record)
            other_predictions = Store(results).predictions(other)
            assert other_predictions.keys == predictions.keys
            np.testing.assert_allclose(other_predictions.logits, predictions.logits, atol=1e-4)
            for name, value in record.scores:
                assert getattr(other.scores, name) == pytest.approx(value, abs=1e-6), name


def test_several_processes_refuse_with_one_message(small, tmp_path, cache):
    arguments = ("--suite", small, "--set", "batch_size=15", "--gpus", 2, "--device", "cpu")
    with mlbench(tmp_path, cache, "run", *arguments) as going:
        output, _ = going.communicate(timeout=300)
    assert b"give a multiple of 2" in output and going.returncode == 1, output.decode()
    with mlbench(tmp_path, cache, "run", "--plugins", "sgrl", *arguments[4:]) as going:
        output, _ = going.communicate(timeout=300)
    assert output.count(b"did you mean ssgrl") == 1 and going.returncode == 2, output.decode()


def test_a_loss_that_diverges_ends_the_run_on_every_process(small, tmp_path, cache):
    with small.open("a") as file:
        file.write("per_method: {gap: {optimizer: {name: sgd, lr: 1.0e+37}}}\n")
    arguments = ("--suite", small, "--gpus", 2, "--device", "cpu")
    with mlbench(tmp_path, cache, "run", *arguments) as going:
        output, _ = going.communicate(timeout=300)
    assert going.returncode == 1, output.decode()
    found = records(tmp_path / "results")
    assert found["gap"].status == "diverged" and found["gmp"].status == "ok"


@pytest.mark.parametrize("delay", [0.3, 2.0])
def test_a_killed_matrix_is_completed_by_the_next_run(small, tmp_path, cache, cli, delay):
    with mlbench(tmp_path, cache, "run", "--suite", small, start_new_session=True) as going:
        # Killed some time after the first line about a run, wherever that is.
        for line in going.stdout:
            if b"[1/2]" in line:
                break
        time.sleep(delay)
        os.killpg(going.pid, signal.SIGKILL)
    for file in (tmp_path / "results").glob("records/**/*.json"):
        json.loads(file.read_text())
    ended = cli("run", "--suite", small)
    assert ended.code == 0, ended.err
    assert {r.status for r in records(tmp_path / "results").values()} == {"ok"}


def test_interrupting_keeps_whole_records_and_says_so(small, tmp_path, cache):
    # A shell lets what it starts in the background ignore the interrupt, and that is inherited.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    asked = ("run", "--suite", small, "--epochs", 500)
    with mlbench(tmp_path, cache, *asked, preexec_fn=heeding) as going:
        for line in going.stdout:
            if b"epoch 3" in line:
                break
        going.send_signal(signal.SIGINT)
        output, _ = going.communicate(timeout=300)
    assert going.returncode == 130 and b"repeat the command to run the rest" in output
    assert not list((tmp_path / "results").glob("records/**/*.json"))
