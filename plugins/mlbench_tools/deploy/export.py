"""``mlbench export MODEL``: a trained model for another runtime, checked before it is kept."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mlbench.cli.console import Data, data_folder, writing
from mlbench.files import atomic_write
from mlbench.text import count
from mlbench.types import DataError, MlbenchError, ModelFile, ModelInfo, SuiteError, WeightsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mlbench.trained_model import TrainedModel

Form = Literal["onnx", "openvino", "torch"]
ENDINGS: dict[Form, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
PACKAGES: dict[Form, tuple[str, ...]] = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("torch", "onnx", "onnxscript", "openvino"),
    "torch": ("torch",),
}
MODEL, VERSIONS = "mlbench_model", "mlbench_versions"
"""Names of the metadata: the JSON of a ``ModelInfo``, and package -> version."""

BATCHES = (1, 5)
"""Sizes of the batches that are compared; the program was exported with another one."""
PICTURES = 100
"""Largest number of pictures that are compared."""
TOLERANCE = 1e-3
"""Largest difference of a logit, as a fraction of the standard deviation of all logits."""
TOLERANCE_MAP = 0.1
"""Largest difference of mAP, in percent."""

EXAMPLES = """
Examples:

  mlbench export results/runs/cc19c684 --format onnx --out shoes.onnx --data ~/data

  mlbench export results/runs/cc19c684 --format openvino --out shoes.xml --pictures photos/
"""


def export(
    model: Annotated[Path, typer.Argument(help="The folder of a run, or a checkpoint.")],
    form: Annotated[Form, typer.Option("--format", help="onnx, openvino (.xml, .bin) or torch.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: model.ENDING in the folder.")
    ] = None,
    data: Data = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Compare on the pictures of this folder, not on the test split."),
    ] = None,
) -> None:
    """Write a model for another runtime; one that computes other logits there is refused."""
    from mlbench.api import load
    from mlbench_tools.deploy.formats import read_onnx, read_openvino, read_torch

    trained = load(model, device="cpu")
    folder = model if model.is_dir() else model.parent
    file = out or folder / f"model{ENDINGS[form]}"
    if file.suffix != ENDINGS[form]:
        raise SuiteError(f"--out {file}: a file of {form} ends in {ENDINGS[form]}; name it so")
    versions = _versions(form)
    sample = _sample(trained, data or data_folder(), pictures)
    writer = {"onnx": _write_onnx, "openvino": _write_openvino, "torch": _write_torch}[form]
    read = {"onnx": read_onnx, "openvino": read_openvino, "torch": read_torch}[form]
    with writing(f"--out {file}", "; name another file"), atomic_write(file) as part:
        # The runtimes look at the ending, and OpenVINO writes a second file beside the first.
        whole = part.with_suffix(ENDINGS[form])
        try:
            with quiet():
                writer(trained, whole, versions)
            report = compare(trained, read(whole), sample)
            if whole.with_suffix(".bin").exists():
                whole.with_suffix(".bin").replace(file.with_suffix(".bin"))
            whole.replace(part)
        finally:
            whole.unlink(missing_ok=True)
            whole.with_suffix(".bin").unlink(missing_ok=True)
    typer.echo(f"{file}: {report}")


def _versions(form: Form) -> dict[str, str]:
    """The versions of the packages that write and read a format."""
    try:
        return {name: version(name) for name in PACKAGES[form]}
    except PackageNotFoundError as error:
        raise SuiteError(
            f"--format {form} needs {error.name}; `pip install 'mlbench-mlic[export]'`"
        ) from error


# --------------------------------------------------------------------------------------- writing it
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
    import torch

    from mlbench_tools.deploy.runtimes import Outputs

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


def _write_torch(trained: TrainedModel, file: Path, versions: dict[str, str]) -> None:
    import torch

    program = program_of(trained)
    with file.open("wb") as stream:  # given a path, torch raises RuntimeError where it cannot write
        torch.export.save(program, stream, extra_files=_header(trained.info, versions))


def _write_onnx(trained: TrainedModel, file: Path, versions: dict[str, str]) -> None:
    import torch

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


def _write_openvino(trained: TrainedModel, file: Path, versions: dict[str, str]) -> None:
    import openvino

    between = file.with_suffix(".onnx")
    try:
        _write_onnx(trained, between, versions)
        converted = openvino.convert_model(between)
        for name, value in _header(trained.info, versions).items():
            converted.set_rt_info(value, name)
        openvino.save_model(converted, file, compress_to_fp16=False)
    finally:
        between.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------- comparing
@dataclass(frozen=True)
class ComparedPictures:
    """Pictures to compare on: uint8 [N, 3, S, S], and targets int8 [N, C] if they are known."""

    pixels: Tensor
    targets: NDArray[np.int8] | None


def _sample(trained: TrainedModel, data: Path | None, pictures: Path | None) -> ComparedPictures:
    """Pictures of a folder, or of the test split of the data set that the model was trained on."""
    import torch

    from mlbench.cli.console import cache_folder
    from mlbench.data.open import open_splits
    from mlbench.registry import recorded_as
    from mlbench.trained_model import find_pictures
    from mlbench_tools.scoring.evaluate import select_labels

    spec, targets = trained.info.spec, None
    if pictures is not None:
        files = find_pictures(pictures)
    else:
        dataset, options = recorded_as(spec.dataset, spec.dataset_options)
        try:
            splits = open_splits(dataset, options, data, cache_folder())
            test = select_labels(trained.info, splits, dataset)
        except (MlbenchError, OSError) as error:
            raise SuiteError(
                f"an export is compared with the model on real pictures, and {spec.dataset} cannot "
                f"be opened ({error}); name its folder with --data, or any pictures with --pictures"
            ) from error
        files, targets = list(test.files), test.targets
    tried = ((i, trained.pixels(file)) for i, file in enumerate(files))
    readable = ((i, found) for i, found in tried if not isinstance(found, str))
    kept = dict(islice(readable, PICTURES))
    if not kept:
        raise DataError(f"none of the pictures in {files[0].parent} can be read; give others")
    pixels = torch.stack([*kept.values()])
    return ComparedPictures(pixels, None if targets is None else targets[[*kept]])


def compare(trained: TrainedModel, exported: ModelFile, sample: ComparedPictures) -> str:
    """Compare an exported model with the original; return the differences, in words.

    Raises:
        WeightsError: logits differ by more than ``TOLERANCE`` or mAP by more than
            ``TOLERANCE_MAP``.
    """
    import numpy as np
    import torch

    with torch.inference_mode():
        wanted = _logits(trained.network, sample.pixels, 64)
        found = {size: _logits(exported.network, sample.pixels, size) for size in BATCHES}
    spread = float(wanted.std())
    largest = {size: float(np.abs(one - wanted).max()) / spread for size, one in found.items()}
    worst = max(largest.values())
    changes = {size: _change(sample.targets, wanted, one) for size, one in found.items()}
    change = max((abs(one) for one in changes.values() if one is not None), default=None)
    said = ", ".join(f"{value:.1e} at batch {size}" for size, value in largest.items())
    report = (
        f"{count(len(wanted), 'picture')} compared; logits differ by at most {said} of their spread"
    )
    if change is not None:
        report += f", mAP by {change:.3f}"
    # NaN compares false.
    if not worst <= TOLERANCE or (change is not None and not change <= TOLERANCE_MAP):
        raise WeightsError(f"not exported: {report}; {_cause(trained, sample, wanted, spread)}")
    return report


def _logits(network: Callable[..., Any], pixels: Tensor, size: int) -> NDArray[np.float32]:
    import numpy as np

    parts = [network(batch).logits.float().numpy() for batch in pixels.split(size)]
    return np.concatenate(parts)


def _change(
    targets: NDArray[np.int8] | None, before: NDArray[np.float32], after: NDArray[np.float32]
) -> float | None:
    """The change of mAP in percent; None without a label that has an AP."""
    import numpy as np

    from mlbench.metrics.average_precision import average_precision

    if targets is None:
        return None
    both = [average_precision(one, targets) for one in (before, after)]
    if np.isnan(both[0]).all():
        return None
    return float(100 * (np.nanmean(both[1]) - np.nanmean(both[0])))


def _cause(
    trained: TrainedModel, sample: ComparedPictures, wanted: NDArray[np.float32], spread: float
) -> str:
    """Say whether the program of ``torch.export`` or the runtime computes something else."""
    import numpy as np
    import torch

    program = program_of(trained).module()
    with torch.inference_mode():
        between = np.concatenate([program(b).numpy() for b in sample.pixels.split(BATCHES[-1])])
    difference = float(np.abs(between - wanted).max()) / spread
    if not difference <= TOLERANCE:
        return (
            f"the program of torch.export differs by {difference:.1e}: the code of the backbone or "
            "the head depends on the batch, or does something else when exported"
        )
    return (
        f"the program of torch.export agrees ({difference:.1e}), so that the runtime computes "
        "something else; try another --format or another version of the runtime"
    )
