"""``mlbench export``: what the exported model says and computes, and what is refused."""

import numpy as np
import pytest

import mlbench
from mlbench.build import open_model
from mlbench.types import WeightsError
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
    done = cli("export", trained, "--format", "torch", "--out", tmp_path / "a.pt2")
    assert done.code == 2 and "--data" in done.err and "--pictures" in done.err


def test_what_is_no_exported_model_is_refused(tmp_path):
    for ending in ("onnx", "xml", "pt2"):
        with pytest.raises(WeightsError, match="no such file"):
            open_model(tmp_path / f"none.{ending}")
        file = tmp_path / f"bad.{ending}"
        file.write_bytes(b"nothing")
        what = r"\(its weights are missing: put bad\.bin" if ending == "xml" else ""
        with pytest.raises(WeightsError, match=rf"bad\.{ending}: cannot be read {what}"):
            open_model(file)
