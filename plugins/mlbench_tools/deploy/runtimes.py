"""Time models as they are deployed; each function is a plugin of the group ``mlbench.runtimes``."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlbench.types import HeadOutput, MeasureError
from mlbench_tools.deploy.export import quiet
from mlbench_tools.deploy.formats import package

Call = Callable[[], Any]


class Outputs(nn.Module):
    """The logits of a model, or the maps of a bare backbone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """Return plain tensors."""
        found = self.model(images)
        return found.logits if isinstance(found, HeadOutput) else found


def onnx_session(model: nn.Module, images: Tensor) -> Call:
    """Prepare a model for onnxruntime on the CPU, with as many threads as torch.

    Raises:
        MeasureError: the package is missing, or the images are on another device.
    """
    onnxruntime = package("onnxruntime", "this runtime", MeasureError)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        file = _export(model, images, Path(folder))
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return _warm(functools.partial(session.run, None, {"images": images.numpy()}))


def openvino_model(model: nn.Module, images: Tensor) -> Call:
    """Prepare a model for OpenVINO on the CPU in float32, with as many threads as torch.

    Raises:
        MeasureError: the package is missing, or the images are on another device.
    """
    openvino = package("openvino", "this runtime", MeasureError)
    wanted = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    with tempfile.TemporaryDirectory() as folder:
        compiled = openvino.compile_model(_export(model, images, Path(folder)), "CPU", wanted)
    return _warm(functools.partial(compiled.create_infer_request().infer, [images.numpy()]))


def _export(model: nn.Module, images: Tensor, folder: Path) -> Path:
    if images.device.type != "cpu":
        raise MeasureError(f"this runtime computes on the CPU, not on {images.device}")
    file = folder / "model.onnx"
    with torch.inference_mode(False), torch.no_grad(), quiet():
        program = torch.onnx.export(
            Outputs(model).eval(), (images,), dynamo=True, verbose=False, input_names=["images"]
        )
    assert program is not None
    program.save(file, external_data=False)
    return file


def _warm(call: Call) -> Call:
    for _ in range(3):
        call()
    return call
