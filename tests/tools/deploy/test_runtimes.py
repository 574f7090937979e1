"""``mlbench measure --runtime onnxruntime`` and ``openvino``: the exported model, timed."""

import pytest
import torch
from torch import nn

from mlbench import registry
from mlbench.contracts.made_up import PYRAMID, made_up_context
from mlbench.types import HeadOutput, MeasureError


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
