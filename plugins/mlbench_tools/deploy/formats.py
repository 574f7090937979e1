"""Write, read and time exported models.

Readers are plugins of the group ``mlbench.formats``, timed models of ``mlbench.runtimes``.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mlbench.text import first_error
from mlbench.trained_model import TrainedModel
from mlbench.types import HeadOutput, MeasureError, MlbenchError, ModelFile, ModelInfo, WeightsError

MODEL, VERSIONS = "mlbench_model", "mlbench_versions"
"""Names of the metadata: the JSON of a ``ModelInfo``, and package -> version."""

Run = Callable[[Tensor], Tensor]
"""uint8 images [B, 3, S, S] -> logits [B, C]."""


def package(name: str, who: str, error: type[MlbenchError]) -> Any:
    """Import a runtime's package; an error of this type says who needs it if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        text = f"{who} needs {name}; `pip install 'mlbench-mlic[export]'`"
        raise error(text) from missing


# ----------------------------------------------------------------------------------------- writing
class Outputs(nn.Module):
    """The logits of a model, or the maps of a bare backbone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """Return plain tensors."""
        found = self.model(images)
        return found.logits if isinstance(found, HeadOutput) else found


@contextmanager
def quiet() -> Iterator[None]:
    """Silence exporters, which warn about their own internals."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def program_of(trained: TrainedModel) -> Any:
    """The model as a program of ``torch.export``: uint8 [B, 3, S, S] -> logits [B, C], any B.

    Raises:
        WeightsError: the model was exported already, or its code cannot be exported.
    """
    network = trained.network
    if not isinstance(network, torch.nn.Module):
        raise WeightsError("an exported model cannot be exported again; give the checkpoint")
    size = trained.info.spec.settings.image_size
    images = torch.zeros(3, 3, size, size, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=4096)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(
                Outputs(network).eval(), (images,), dynamic_shapes={"images": {0: batch}}
            )
    except Exception as error:
        settings = trained.info.spec.settings
        raise WeightsError(
            f"{settings.backbone} with {settings.head} cannot be exported with a batch of any "
            f"size ({type(error).__name__}: {str(error).splitlines()[0]}); `mlbench check "
            f"{settings.head}` says more"
        ) from error


def _header(info: ModelInfo, versions: Mapping[str, str]) -> dict[str, str]:
    """The metadata that an exported model carries."""
    return {MODEL: info.model_dump_json(), VERSIONS: json.dumps(versions)}


def write_torch(trained: TrainedModel, file: Path, versions: dict[str, str]) -> None:
    """Write a program of ``torch.export``."""
    program = program_of(trained)
    with file.open("wb") as stream:  # given a path, torch raises RuntimeError where it cannot write
        torch.export.save(program, stream, extra_files=_header(trained.info, versions))


def write_onnx(trained: TrainedModel, file: Path, versions: dict[str, str]) -> None:
    """Write an ONNX file."""
    program = torch.onnx.export(
        program_of(trained),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
    )
    assert program is not None
    opset = {"opset": str(program.model.opset_imports.get(""))}
    program.model.metadata_props.update(_header(trained.info, versions | opset))
    program.save(file, external_data=False)


def write_openvino(trained: TrainedModel, file: Path, versions: dict[str, str]) -> None:
    """Write an ``.xml`` and its ``.bin``; remove the ONNX file that they are made from."""
    import openvino

    between = file.with_suffix(".onnx")
    write_onnx(trained, between, versions)
    converted = openvino.convert_model(between)
    between.unlink()
    for name, value in _header(trained.info, versions).items():
        converted.set_rt_info(value, name)
    openvino.save_model(converted, file, compress_to_fp16=False)


# ----------------------------------------------------------------------------------------- reading
def _reader(open_: Callable[[Path], tuple[Run, str | None]]) -> Callable[[Path], ModelFile]:
    """Make a reader of a function that returns a file's program and its ``MODEL``, if any.

    The reader raises ``WeightsError``: a package is missing, or ``mlbench export`` did not write
    the file.
    """

    @functools.wraps(open_)
    def read(file: Path) -> ModelFile:
        remedy = "give a file that `mlbench export` wrote"
        if not file.is_file():
            raise WeightsError(f"{file}: no such file; {remedy}")
        try:
            run, text = open_(file)
        except WeightsError:
            raise
        except Exception as error:  # runtimes raise types of their own
            said = str(error).strip()
            reason = said.splitlines()[0] if said else type(error).__name__
            raise WeightsError(f"{file}: cannot be read ({reason}); {remedy}") from error
        try:
            info = ModelInfo.model_validate_json(text or "")
        except ValidationError as error:
            what = first_error(error) if text else "it has no labels"
            raise WeightsError(f"{file}: is no model of mlbench ({what}); {remedy}") from error
        return ModelFile(lambda images: HeadOutput(run(images)), info)

    return read


def cpu_session(onnxruntime: Any, file: Path, threads: int = 0) -> Any:
    """A session of onnxruntime on the CPU, by default with a thread for each core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only; it warns about what it optimises
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


@_reader
def read_onnx(file: Path) -> tuple[Run, str | None]:
    """Read an ONNX file; onnxruntime computes on the CPU."""
    session = cpu_session(package("onnxruntime", f"{file}:", WeightsError), file)

    def run(images_B3HW: Tensor) -> Tensor:
        (logits_BC,) = session.run(None, {"images": images_B3HW.cpu().numpy()})
        return torch.from_numpy(logits_BC)

    return run, session.get_modelmeta().custom_metadata_map.get(MODEL)


@_reader
def read_openvino(file: Path) -> tuple[Run, str | None]:
    """Read a model of OpenVINO (``.xml`` with its ``.bin``); it computes in float32 on the CPU."""
    openvino = package("openvino", f"{file}:", WeightsError)
    if not (weights := file.with_suffix(".bin")).is_file():
        raise FileNotFoundError(f"its weights are missing: put {weights.name} beside it")
    model = openvino.Core().read_model(file)
    # Some CPUs compute in bfloat16 unless they are told not to.
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images_B3HW: Tensor) -> Tensor:
        return torch.from_numpy(compiled([images_B3HW.cpu().numpy()])[0].copy())

    return run, model.get_rt_info([MODEL]).astype(str) if model.has_rt_info([MODEL]) else None


@_reader
def read_torch(file: Path) -> tuple[Run, str | None]:
    """Read a program of ``torch.export``."""
    extra = {MODEL: ""}
    program = torch.export.load(file, extra_files=extra).module()
    return lambda images_B3HW: program(images_B3HW.cpu()), extra[MODEL]


# ------------------------------------------------------------------------------------------ timing
def onnx_session(model: nn.Module, images: Tensor) -> Callable[[], Any]:
    """Prepare a model for onnxruntime on the CPU, with as many threads as torch.

    Raises:
        MeasureError: the package is missing, or the images are on another device.
    """
    onnxruntime = package("onnxruntime", "this runtime", MeasureError)
    with tempfile.TemporaryDirectory() as folder:
        file = _export(model, images, Path(folder))
        session = cpu_session(onnxruntime, file, torch.get_num_threads())
    return _warm(functools.partial(session.run, None, {"images": images.numpy()}))


def openvino_model(model: nn.Module, images: Tensor) -> Callable[[], Any]:
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


def _warm(call: Callable[[], Any]) -> Callable[[], Any]:
    for _ in range(3):
        call()
    return call
