"""Time models as they are deployed; each function is a plugin of the group ``mlbench.runtimes``."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlbench.types import MeasureError
from mlbench_tools.deploy.formats import Outputs, cpu_session, package, quiet

Call = Callable[[], Any]


def onnx_session(model: nn.Module, images: Tensor) -> Call:
    """Prepare a model for onnxruntime on the CPU, with as many threads as torch.

    Raises:
        MeasureError: the package is missing, or the images are on another device.
    """
    onnxruntime = package("onnxruntime", "this runtime", MeasureError)
    with tempfile.TemporaryDirectory() as folder:
        file = _export(model, images, Path(folder))
        session = cpu_session(onnxruntime, file, torch.get_num_threads())
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
