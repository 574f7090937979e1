"""``mlbench measure --runtime onnxruntime`` and ``openvino``: the exported model, timed."""

import json

import pytest
import torch
from torch import nn

from mlbench.types import HeadOutput, MeasureError
from mlbench_tools.deploy.runtimes import onnx_session, openvino_model


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images):
        return HeadOutput(self.fc(images.float().mean((2, 3))))


@pytest.mark.parametrize("runtime", [onnx_session, openvino_model])
def test_a_runtime_computes_what_the_model_computes(runtime):
    torch.manual_seed(0)
    model, images = Model().eval(), torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        found = runtime(model, images)()
        torch.testing.assert_close(torch.as_tensor(found[0]), model(images).logits)
        with pytest.raises(MeasureError, match="computes on the CPU"):
            runtime(model, images.to("meta"))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_deployable_model_has_a_latency_of_its_own(cli, runtime):
    small = ("--backbones", "timm:test_resnet", "--image-size", "32", "--seconds", "0.1")
    flags = ("--plugins", "gap", "--labels", "3", "--runtime", runtime, "--device", "cpu")
    done = cli("measure", *flags, *small, "--json")
    assert done.code == 0, done.err
    (measured,) = json.loads(done.out)
    assert measured["runtime"] == runtime and measured["timings"]
