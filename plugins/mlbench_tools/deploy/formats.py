"""Read exported models; each function is a plugin of the group ``mlbench.formats``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from mlbench.text import first_error
from mlbench.types import HeadOutput, MlbenchError, ModelFile, ModelInfo, WeightsError
from mlbench_tools.deploy.export import MODEL


def package(name: str, who: str, error: type[MlbenchError]) -> Any:
    """Import a runtime's package; an error of this type says who needs it if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        text = f"{who} needs {name}; `pip install 'mlbench-mlic[export]'`"
        raise error(text) from missing


def read_onnx(file: Path) -> ModelFile:
    """Read an ONNX file; onnxruntime computes on the CPU.

    Raises:
        WeightsError: onnxruntime is missing, or the file is not one that ``mlbench export`` wrote.
    """
    onnxruntime = package("onnxruntime", f"{file}:", WeightsError)

    def open_() -> tuple[Callable[[Tensor], Tensor], str | None]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only; it warns about what it optimises
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

        def run(images_B3HW: Tensor) -> Tensor:
            (logits_BC,) = session.run(None, {"images": images_B3HW.cpu().numpy()})
            return torch.from_numpy(logits_BC)

        return run, session.get_modelmeta().custom_metadata_map.get(MODEL)

    return _model(file, open_)


def read_openvino(file: Path) -> ModelFile:
    """Read a model of OpenVINO (``.xml`` with its ``.bin``); it computes in float32 on the CPU.

    Raises:
        WeightsError: openvino is missing, or the file is not one that ``mlbench export`` wrote.
    """
    openvino = package("openvino", f"{file}:", WeightsError)

    def open_() -> tuple[Callable[[Tensor], Tensor], str | None]:
        if not (weights := file.with_suffix(".bin")).is_file():
            raise FileNotFoundError(f"its weights are missing: put {weights.name} beside it")
        model = openvino.Core().read_model(file)
        # Some CPUs compute in bfloat16 unless they are told not to.
        compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(images_B3HW: Tensor) -> Tensor:
            return torch.from_numpy(compiled([images_B3HW.cpu().numpy()])[0].copy())

        found = model.get_rt_info([MODEL]).astype(str) if model.has_rt_info([MODEL]) else None
        return run, found

    return _model(file, open_)


def read_torch(file: Path) -> ModelFile:
    """Read a program of ``torch.export``.

    Raises:
        WeightsError: the file is not one that ``mlbench export`` wrote.
    """

    def open_() -> tuple[Callable[[Tensor], Tensor], str | None]:
        extra = {MODEL: ""}
        program = torch.export.load(file, extra_files=extra).module()

        def run(images_B3HW: Tensor) -> Tensor:
            logits_BC: Tensor = program(images_B3HW.cpu())
            return logits_BC

        return run, extra[MODEL]

    return _model(file, open_)


def _model(
    file: Path, open_: Callable[[], tuple[Callable[[Tensor], Tensor], str | None]]
) -> ModelFile:
    """The model in a file."""
    remedy = "give a file that `mlbench export` wrote"
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; {remedy}")
    try:
        run, text = open_()
    except Exception as error:  # runtimes raise types of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{file}: cannot be read ({reason}); {remedy}") from error
    try:
        info = ModelInfo.model_validate_json(text or "")
    except ValidationError as error:
        what = first_error(error) if text else "it has no labels"
        raise WeightsError(f"{file}: is no model of mlbench ({what}); {remedy}") from error

    def network(images_B3HW: Tensor) -> HeadOutput:
        return HeadOutput(run(images_B3HW))

    return ModelFile(network, info)
