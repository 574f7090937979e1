"""What a precision means, and who may use it."""

import copy
from contextlib import nullcontext

import pytest
import torch

from mlbench.engine.model import autocast, matrix_precision, unsupported
from tests.engine import tiny
from tests.engine.tiny import fit

CPU = torch.device("cpu")


def switches():
    backends = torch.backends
    return [part.fp32_precision for part in (backends.cuda.matmul, backends.cudnn.conv)]


def test_fp32_is_exact_and_tf32_is_asked_for_by_name():
    torch.backends.cudnn.allow_tf32 = True  # torch's default
    with autocast(CPU, "fp32"):
        assert switches() == ["ieee", "ieee"] and not torch.backends.cudnn.allow_tf32
        with autocast(CPU, "tf32"):
            assert switches() == ["tf32", "tf32"] and torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.allow_tf32 and not torch.is_autocast_enabled("cpu")
        assert switches() == ["ieee", "ieee"] and not torch.backends.cuda.matmul.allow_tf32
    assert switches() == ["ieee", "tf32"], "as before"


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_backward_passes_are_in_the_precision_of_the_run(precision):
    seen = []

    class Watched(tiny.Bce):
        def forward(self, logits, targets):
            logits.register_hook(lambda _: seen.append(switches()))
            return super().forward(logits, targets)

    fit(tiny.training(loss=Watched(), precision=precision))
    assert len(seen) == 6 and {s for pair in seen for s in pair} == {
        "ieee" if precision == "fp32" else "tf32"
    }


def test_a_precision_that_the_device_lacks_is_refused_when_planned(cli):
    few = "dataset_options={train_images: 40, test_images: 20, size: 32}"
    asked = ("--plugins", "gap", "--backbones", "timm:test_resnet", "--set", few, "--dry-run")
    for precision in ("tf32", "fp16"):
        ended = cli("run", *asked, "--device", "cpu", "--set", f"precision={precision}")
        ended.failed(f"cpu cannot compute in {precision}; use --set precision=fp32")
    cli("run", *asked, "--set", "precision=fp32").ok()


def test_an_older_gpu_is_not_given_bf16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: False)
    device = torch.device("cuda")
    for precision in ("bf16", "tf32"):
        assert unsupported(precision, device).startswith(f"Tesla T4 cannot compute in {precision}")
    assert unsupported("fp16", device) is None and unsupported("fp32", device) is None


@pytest.mark.gpu
def test_fp32_on_a_gpu_is_float32_and_tf32_is_not():
    device = torch.device("cuda")
    model, images = tiny.model().to(device).eval(), tiny.training().source.images.to(device)
    exact = copy.deepcopy(model).double()(images).logits
    errors = {}
    with torch.no_grad():
        for precision in ("fp32", "tf32"):
            with autocast(device, precision):
                errors[precision] = (model(images).logits - exact).abs().max().item()
        x = torch.randn(8, 64, 32, 32, device=device)
        kernel = torch.randn(64, 64, 3, 3, device=device)
        right = torch.nn.functional.conv2d(x.double(), kernel.double())
        for precision, limit in (("fp32", 1e-6), ("tf32", 1e-3)):
            with matrix_precision(precision):
                wrong = torch.nn.functional.conv2d(x, kernel) - right
                product = x[0, 0] @ x[0, 1] - (x[0, 0].double() @ x[0, 1].double())
            error = (wrong.std() / right.std()).item()
            assert error < limit and (precision == "fp32" or error > 1e-5)
            assert product.abs().max() < (1e-4 if precision == "fp32" else 1e-1)
    assert errors["fp32"] < 1e-5
