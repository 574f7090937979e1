"""mlbench from Python: the three functions as the README shows them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import mlbench
from mlbench.data.open import open_splits
from mlbench.trained_model import find_pictures
from mlbench.types import DataError, PluginError, SuiteError
from mlbench_plugins.datasets.synthetic import NAMES
from tests.tools.deploy.conftest import small_run, trained
from tests.tools.weights.released import FEW

__all__ = ["small_run", "trained"]

FAST = {"epochs": 1, "settings": {"image_size": 32}, "dataset_options": FEW, "device": "cpu"}


@pytest.fixture
def model(trained):
    return mlbench.load(trained, device="cpu")


def test_a_matrix_is_a_table_and_runs_once(cache, tmp_path):
    assert {"load", "run", "results", "TrainedModel"} <= set(dir(mlbench)) <= {*mlbench.__all__}
    folder = tmp_path / "results"
    table = mlbench.run(["gap"], results=folder, cache=cache, **FAST)
    assert table["method"].tolist() == ["gap"] and 0 < table["mAP"][0] <= 100
    call = f"python: mlbench.run(['gap'], ('synthetic',), results={folder!r}, cache="
    assert table["command"][0].startswith(call)
    again = mlbench.run(["gap"], results=folder, cache=cache, **FAST)
    assert again["started"].tolist() == table["started"].tolist()
    everything = mlbench.results(folder)
    assert everything["run_id"].tolist() == table["run_id"].tolist()
    assert everything["parameters"][0] > 0 and everything["seconds"][0] > 0
    (empty := tmp_path / "empty").mkdir()
    assert mlbench.results(empty).columns.tolist() == everything.columns.tolist()


def test_what_cannot_run_is_an_error(tmp_path):
    with pytest.raises(PluginError, match="unknown plugin 'gapp'; did you mean gap"):
        mlbench.run(["gapp"])
    for fields, message in (
        ({"plugins": "gap", "datasets": "manifest:no.csv"}, r"gap on .*: there is no no\.csv"),
        ({"plugins": []}, "no method to run"),
        ({"datasets": None}, "datasets = None: Input should be a valid tuple; give a list$"),
        ({"results": 3}, "results = 3: "),
        ({"epoch": 1}, "unknown option 'epoch' of mlbench.run; did you mean epochs?"),
        ({"optimizer": {"rate": 1}}, "unknown option 'optimizer.rate'"),
    ):
        with pytest.raises(SuiteError, match=message):
            mlbench.run(**{"plugins": ["gap"], "results": tmp_path, **fields})
    with pytest.raises(SuiteError, match="not a folder"):
        mlbench.results(tmp_path / "nowhere")


def test_all_forms_of_a_picture_give_the_same_scores(model, pictures):
    file = pictures / "4.png"
    opened = Image.open(file).convert("RGB")
    pixels = np.asarray(opened)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    forms = [file, str(file), opened, pixels, tensor]
    found = model(forms)
    # One at a time: with several threads, the place in a batch may change a score's last digit.
    assert len({tuple(model([one])[0].scores.items()) for one in forms}) == 1
    assert all(one.scores == pytest.approx(found[0].scores) for one in found)
    assert found[0].image == file and found[2].image is None
    assert set(found[0].labels) == set(model.labels) == set(NAMES)
    assert list(found[0].scores.values()) == sorted(found[0].scores.values(), reverse=True)
    assert found[0].above == tuple(n for n, s in found[0].scores.items() if s >= 0.5)


def test_a_picture_of_pillow_is_decoded_as_its_file_is(model, tmp_path):
    """Turned upright, transparency on white, the upper eight bits of sixteen."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise[..., :3]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(noise).save(tmp_path / "clear.png")
    Image.fromarray(noise[..., 0] * np.uint16(257)).save(tmp_path / "deep.png")
    for file in tmp_path.iterdir():
        with Image.open(file) as opened:
            of_file, of_image = model([file, opened])
        assert of_file.scores == pytest.approx(of_image.scores), file.name
    of_file, of_array = (model([one])[0] for one in (tmp_path / "clear.png", noise))
    assert of_file.scores == of_array.scores
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((tmp_path / "turned.jpg").read_bytes()[:-900])
    with Image.open(cut) as opened, pytest.raises(DataError, match="truncated"):
        model([opened])


def test_the_precision_is_that_of_the_command_line(monkeypatch, tmp_path):
    def stop(suite, _):
        raise SuiteError(suite.precision)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("mlbench.engine.model.unsupported", lambda *_: None)
    monkeypatch.setattr("mlbench.api.carry_out", stop)
    asked = ({}, {"precision": "fp16"}, {"device": "cpu"})
    for more, wanted in zip(asked, ("bf16", "fp16", "fp32"), strict=True):
        with pytest.raises(SuiteError, match=wanted):
            mlbench.run(["gap"], results=tmp_path, **more)


def test_pictures_in_other_forms_are_refused(model):
    for bad in (np.zeros((8, 8, 3)), torch.zeros(3, 8, 8), np.zeros((2, 8, 8, 3), np.uint8), 3):
        with pytest.raises(DataError, match=r"picture"):
            model([bad])
    for empty in (np.zeros((0, 8, 3), np.uint8), Image.new("RGB", (0, 8))):
        with pytest.raises(DataError, match=r"0.* is no picture|no pixels"):
            model([empty])
    for one in ("a.jpg", np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(DataError, match="give a list"):
            model(one)
    with pytest.raises(DataError, match="batch_size 0"):
        model([Image.new("RGB", (8, 8))], batch_size=0)


def test_a_folder_is_labelled_and_bad_files_are_named(model, pictures):
    found = [one for batch in model.batches(pictures, batch_size=2) for one in batch]
    assert [one.image.name for one in found] == [
        f"{i}.{e}" for i, e in enumerate(["jpg", "jpg", "jpg", "png", "png", "jpg", "png"])
    ]
    assert [one.error is None for one in found] == [True] * 5 + [False] * 2
    assert "5.jpg" in found[5].error and "6.png" in found[6].error
    assert not any("the data set's lists" in one.error for one in found[5:])
    (folder := pictures.parent / "mixed" / ".hidden").mkdir(parents=True)
    for name in ("._a.jpg", "a.HEIC", "b", "c.pdf", "d.mpg", "e.txt", ".hidden/f.jpg"):
        (folder.parent / name).write_bytes((pictures / "0.jpg").read_bytes())
    assert [file.name for file in find_pictures(folder.parent)] == ["a.HEIC", "b"]
    others = [*model.batches(pictures / "1.jpg"), *model.batches([Image.open(pictures / "1.jpg")])]
    assert [one[0].scores for one in others] == [model([pictures / "1.jpg"])[0].scores] * 2
    with pytest.raises(DataError, match=r"5\.jpg"):
        model([pictures / "0.jpg", pictures / "5.jpg"])


def test_logits_equal_those_of_evaluate(trained, model, tmp_path, cli, cache):
    """Bit for bit, from the files of the test split."""
    flags = ("--dataset", "synthetic", "--predictions", tmp_path / "p.npz", "--device", "cpu")
    cli("evaluate", trained, *flags).ok()
    splits = open_splits("synthetic", FEW, None, cache)
    found = np.stack([one.logits for batch in model.batches(splits.test.files) for one in batch])
    with np.load(tmp_path / "p.npz") as kept:
        assert np.array_equal(found, kept["logits"])


def test_calibration_and_thresholds_are_those_of_the_model(model):
    c = len(model.labels)
    model.info = model.info.model_copy(
        update={"calibration": ((0.0, 1.0),) * c, "thresholds": (0.7,) + (0.8,) * (c - 1)}
    )
    (found,) = model([Image.new("RGB", (40, 40))])
    assert list(found.scores.values()) == pytest.approx([1 / (1 + np.exp(-1))] * c)
    assert found.above == (model.labels[0],)


@pytest.mark.slow
def test_a_script_needs_no_main_guard(tmp_path, cache):
    arguments = FAST | {"results": str(tmp_path), "cache": str(cache), "seeds": [0, 1], "jobs": 2}
    script = tmp_path / "script.py"
    script.write_text(f"import mlbench\nprint(len(mlbench.run(['gap'], **{arguments!r})))\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2", "and nothing of the script ran twice"
