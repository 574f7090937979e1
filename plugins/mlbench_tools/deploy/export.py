"""``mlbench export MODEL``: a trained model for another runtime, checked before it is kept."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from mlbench.cli.console import Data, data_folder, writing
from mlbench.types import SuiteError

Form = Literal["onnx", "openvino", "torch"]
ENDINGS: dict[Form, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
PACKAGES: dict[Form, tuple[str, ...]] = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("torch", "onnx", "onnxscript", "openvino"),
    "torch": ("torch",),
}

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
    from mlbench_tools.deploy import agreement, formats

    trained = load(model, device="cpu")
    folder = model if model.is_dir() else model.parent
    file = out or folder / f"model{ENDINGS[form]}"
    if file.suffix != ENDINGS[form]:
        raise SuiteError(f"--out {file}: a file of {form} ends in {ENDINGS[form]}; name it so")
    versions = _versions(form)
    sample = agreement.read_pictures(trained, data or data_folder(), pictures)
    write, read = getattr(formats, f"write_{form}"), getattr(formats, f"read_{form}")
    with writing(f"--out {file}", "; name another file"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", suffix=".tmp", dir=file.parent) as made:
            whole = Path(made, file.name)
            whole.touch()  # a name that cannot be written is told before the minutes of an export
            with formats.quiet():
                write(trained, whole, versions)
            report = agreement.compare(trained, read(whole), *sample)
            for part in sorted(Path(made).iterdir()):  # OpenVINO's weights come before its .xml
                part.replace(file.with_name(part.name))
    typer.echo(f"{file}: {report}")


def _versions(form: Form) -> dict[str, str]:
    """The versions of the packages that write and read a format."""
    try:
        return {name: version(name) for name in PACKAGES[form]}
    except PackageNotFoundError as error:
        raise SuiteError(
            f"--format {form} needs {error.name}; `pip install 'mlbench-mlic[export]'`"
        ) from error
