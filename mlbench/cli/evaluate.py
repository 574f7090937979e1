"""``mlbench evaluate CHECKPOINT``: its scores on the test split of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlbench.cli.console import cache_folder, console, data_folder, errors
from mlbench.cli.device import device_name, thread_count
from mlbench.text import count, named_values
from mlbench.types import Places, SuiteError

if TYPE_CHECKING:
    from mlbench.evaluation import Evaluation


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="checkpoint.safetensors of a run or import, or its folder.")
    ],
    dataset: Annotated[str, typer.Option(help="The data set.")],
    data: Annotated[
        Path | None, typer.Option(help="Where the data sets are. Default: $MLBENCH_DATA.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The file that the run was given as --weights, if any.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the data set, as in year=2014; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding threads.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Default: $MLBENCH_CACHE or ~/.cache/mlbench.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write logits, targets, keys and names to this .npz.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the scores of a checkpoint on the test split, as records hold them."""
    from mlbench.cli.progress import Lines
    from mlbench.engine.checkpoint import load
    from mlbench.evaluation import evaluate as score

    places = Places(
        data=data or data_folder(),
        weights=weights,
        results=Path(),
        cache=cache or cache_folder(),
        device=device_name(device),
        workers=thread_count() if workers is None else workers,
    )
    if checkpoint.is_dir():
        checkpoint = checkpoint / "checkpoint.safetensors"
    options = named_values(option or ())
    found = score(load(checkpoint), dataset, options, places, Lines(), batch_size)
    if predictions is not None:
        _keep(found, predictions)
    if as_json:
        typer.echo(json.dumps(_as_data(found, checkpoint), indent=1))
    else:
        _show(found)


def _as_data(found: Evaluation, checkpoint: Path) -> dict[str, object]:
    return {
        "checkpoint": str(checkpoint),
        "identity": found.identity,
        "images": len(found.predictions.keys),
        "scores": found.scores.model_dump(),
        "average_precision": dict(zip(found.names, found.average_precision, strict=True)),
    }


def _show(found: Evaluation) -> None:
    images, labels = count(len(found.predictions.keys), "test image"), len(found.names)
    console.print(f"{found.identity}: {images}, {count(labels, 'label')}", highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.scores:
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    console.print(table)


def _keep(found: Evaluation, file: Path) -> None:
    import numpy as np

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            file,
            logits=found.predictions.logits,
            targets=found.predictions.targets,
            keys=np.array(found.predictions.keys),
            names=np.array(found.names),
        )
    except OSError as error:
        raise SuiteError(f"{file} cannot be written: {error}") from error
    errors.print(f"written to {file}", markup=False, highlight=False)
