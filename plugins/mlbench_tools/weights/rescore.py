"""``mlbench rescore CHECKPOINT``: a record of authors' weights, on a board of their own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mlbench.cli.console import cache_folder, data_folder, errors
from mlbench.cli.device import device_name, thread_count
from mlbench.text import named_values


def rescore(
    checkpoint: Annotated[
        Path, typer.Argument(help="checkpoint.safetensors of `mlbench import`, or its folder.")
    ],
    dataset: Annotated[str, typer.Option(help="The data set.")],
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    data: Annotated[
        Path | None, typer.Option(help="Where the data sets are. Default: $MLBENCH_DATA.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The file that the backbone started from, if any.")
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
) -> None:
    """Score authors' weights and leave a record, for the boards of re-scored checkpoints."""
    from mlbench.build import open_model
    from mlbench.cli.evaluate import score_model
    from mlbench.cli.progress import Lines
    from mlbench.engine.checkpoint import load
    from mlbench.store import Store
    from mlbench.types import Places
    from mlbench_tools.weights.rescoring import record, refuse_own

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
    loaded = load(checkpoint)
    refuse_own(loaded)
    options = named_values(option or ())
    found = score_model(
        open_model(checkpoint, weights), dataset, options, places, Lines(), batch_size
    )
    command = f"mlbench {shlex.join(sys.argv[1:])}"
    made, predictions = record(found, loaded, places, command)
    file = Store(results).write(made, predictions)
    errors.print(f"recorded in {file}", markup=False, highlight=False, soft_wrap=True)
