"""``mlbench export`` and ``card``: what the model for others says, computes and takes."""

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

import mlbench
from mlbench import registry
from mlbench.build import open_model
from mlbench.contracts.made_up import PYRAMID, made_up_context
from mlbench.types import HeadOutput, MeasureError, WeightsError
from mlbench_tools.deploy.card import render
from mlbench_tools.deploy.export import ENDINGS


@pytest.mark.parametrize("form", ["onnx", "openvino", "torch"])
def test_an_exported_model_is_the_model(cli, trained, pictures, form, tmp_path):
    """It stands alone: labels, thresholds and preprocessing travel with it."""
    file = tmp_path / f"alone{ENDINGS[form]}"
    cli("export", trained, "--format", form, "--out", file).ok("mAP by 0.000")
    ours, theirs = (mlbench.load(each, device="cpu") for each in (trained, file))
    assert theirs.info == ours.info
    names = [pictures / f"{i}.jpg" for i in range(3)]
    for batch in (1, 3):
        for one, other in zip(ours(names, batch), theirs(names, batch), strict=True):
            np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {file.name, *(["alone.bin"] if form == "openvino" else [])}
    cli("predict", file, names[0], "--top", "1").ok()
    scores = [
        cli("evaluate", each, "--dataset", "synthetic", "--json").json["scores"]["mAP"]
        for each in (trained, file)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


SOURCE = """
import torch
from mlbench.types import HeadOutput
from mlbench_plugins.methods.pooling import GAP

class Other(GAP):
    def forward(self, features):
        return HeadOutput(super().forward(features).logits + torch.compiler.is_exporting())

class Fixed(GAP):
    def forward(self, features):
        logits = super().forward(features).logits
        return HeadOutput(logits.view(len(logits), -1) if len(logits) == 3 else logits)
"""


def test_a_model_that_computes_something_else_is_refused(cli, install, small_run, pictures):
    install("broken", SOURCE, "[mlbench.heads]\nother = broken:Other\nfixed = broken:Fixed")
    flags = ("--format", "torch", "--pictures", pictures)
    reasons = {"other": "`mlbench check other` tells if", "fixed": "batch of any size"}
    for head, reason in reasons.items():
        run = small_run(head)
        cli("export", run, *flags).failed(reason)
        assert not (run / "model.pt2").exists() and not list(run.glob("*.tmp*"))
    for file in pictures.iterdir():
        file.write_bytes(b"nothing")
    cli("export", run, *flags).failed("none of the pictures in")


def test_a_file_that_cannot_be_written_is_named(cli, trained, pictures, tmp_path):
    file = tmp_path / f"{'x' * 260}.onnx"
    done = cli("export", trained, "--format", "onnx", "--out", file, "--pictures", pictures)
    done.failed(f"--out {file} cannot be written (File name too long); name another file")
    assert [*tmp_path.glob("*xx*")] == []


def test_pictures_are_asked_for_if_the_data_are_not_at_hand(cli, trained, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "mlbench_tools.deploy.agreement.open_splits", lambda *_: (_ for _ in ()).throw(OSError)
    )
    asked = ("export", trained, "--format", "torch", "--out", tmp_path / "a.pt2")
    cli(*asked).failed("--data", "--pictures")


def test_what_is_no_exported_model_is_refused(tmp_path):
    for ending in ("onnx", "xml", "pt2"):
        with pytest.raises(WeightsError, match="no such file"):
            open_model(tmp_path / f"none.{ending}")
        file = tmp_path / f"bad.{ending}"
        file.write_bytes(b"nothing")
        what = r"\(its weights are missing: put bad\.bin" if ending == "xml" else ""
        with pytest.raises(WeightsError, match=rf"bad\.{ending}: cannot be read {what}"):
            open_model(file)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images):
        return HeadOutput(self.fc(images.float().mean((2, 3))))


@pytest.fixture(params=["onnxruntime", "openvino"])
def runtime(request):
    return registry.find("runtime", request.param).load()


def test_a_runtime_computes_what_the_model_computes(runtime):
    torch.manual_seed(0)
    model, images = Model().eval(), torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        found = runtime(model, images)()
        torch.testing.assert_close(torch.as_tensor(found[0]), model(images).logits)
        with pytest.raises(MeasureError, match="computes on the CPU"):
            runtime(model, images.to("meta"))


class OnPyramid(nn.Module):
    """A head on maps that are made of an image by one convolution each."""

    def __init__(self, head):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, x.channels, x.stride, x.stride) for x in PYRAMID)
        self.head = head

    def forward(self, images):
        return self.head(tuple(conv(images / 255) for conv in self.convs))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({p.name for p in registry.plugins("head")} - {"zero_shot"}))
def test_runtimes_compute_what_every_head_computes(name, runtime):
    torch.manual_seed(0)
    model = OnPyramid(registry.make("head", name, (PYRAMID, made_up_context(20)), {})).eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        found = torch.as_tensor(runtime(model, images)()[0])
        torch.testing.assert_close(found, model(images).logits, rtol=1e-4, atol=1e-4)


def test_the_deployable_model_has_a_latency_of_its_own(cli, monkeypatch):
    monkeypatch.setattr("mlbench_tools.costs.measuring.BATCH_SIZES", (1,))
    monkeypatch.setattr("mlbench_tools.costs.measuring.LARGEST", 1)  # an export takes seconds
    small = ("--backbones", "timm:test_resnet", "--image-size", "32", "--seconds", "0.1")
    flags = ("--plugins", "gap", "--labels", "3", "--runtime", "onnxruntime", "--device", "cpu")
    (measured,) = cli("measure", *flags, *small, "--json").ok().json
    assert measured["runtime"] == "onnxruntime" and measured["timings"]


def test_the_folder_is_a_model_of_the_hub(cli, trained, pictures, tmp_path):
    cli("card", trained, "--out", tmp_path / "shoes").ok("hf upload YOUR-NAME/shoes")
    done = cli("card", trained, "--out", tmp_path / "red shoes")
    assert f"hf upload 'YOUR-NAME/red shoes' '{tmp_path}/red shoes'" in done.out
    cli("card", trained, "--out", "/dev/null/x").failed("cannot be written", "name another folder")
    card = ModelCard.load(tmp_path / "shoes" / "README.md")
    card.data.to_dict()
    table = mlbench.results(trained.parent.parent)
    assert card.data.eval_results[0].metric_value == round(table["mAP"][0], 2)
    assert card.data.license == "other" and card.data.pipeline_tag == "image-classification"
    for text in (table["command"][0], trained.name, "Apache-2.0, as the program that draws it"):
        assert text in card.text
    assert "squash to 32 x 32 pixels, bilinear" in card.text and "here 1 and 0" in card.text
    model = mlbench.load(tmp_path / "shoes", device="cpu")
    changed = {"calibration": [(1.5, -0.25)] * len(model.labels)}
    changed["preprocessing"] = model.info.preprocessing.model_copy(update={"resize": 40})
    text = render(model.info.model_copy(update=changed), None, "a.safetensors", "other")
    assert f"{model.labels[0]} (0.5; slope 1.5, offset -0.25)" in text
    assert "squash to 40 x 40 pixels" in text and "cut 32 x 32 from the centre" in text
    assert all(name in card.text for name in model.labels)
    changed = {"label_names": ("\x1b[31mred", "\u202ertl", "$a$ *b* <c>\td", *model.labels[3:])}
    text = render(model.info.model_copy(update=changed), None, "a.safetensors", "other")
    assert "\ufffd[31mred (0.5), \ufffdrtl (0.5), \\$a\\$ \\*b\\* &lt;c> d (0.5)" in text
    assert model([pictures / "0.jpg"])[0].scores
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    cli("card", trained, "--out", tmp_path / "full").failed("not an empty folder")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine"], "it is left alone"
