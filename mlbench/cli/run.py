"""``mlbench run``: train, evaluate and rank every combination of a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlbench.types import MlbenchError, Track

MATRIX, TRAINING, MACHINE = "What to run", "Training", "Machine"
EXAMPLES = """
Examples:

  mlbench run --plugins ssgrl,msrn

  mlbench run --plugins gap,csra,asl --datasets voc2007 --data ~/data --seeds 0,1,2

  mlbench run --suite suite.yaml --set optimizer.lr=3e-4 --set graph=cooccurrence,identity
"""


def run(
    plugins: Annotated[
        str | None,
        typer.Option(
            help="Plugins of any kind, separated by commas; every combination runs.",
            rich_help_panel=MATRIX,
        ),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(
            help="Data sets, separated by commas. Default: synthetic.", rich_help_panel=MATRIX
        ),
    ] = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Backbones, separated by commas. Default: set by the track.",
            rich_help_panel=MATRIX,
        ),
    ] = None,
    losses: Annotated[
        str | None,
        typer.Option(
            help="Losses, separated by commas. Default: set by the track.", rich_help_panel=MATRIX
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds, separated by commas. Default: 0.", rich_help_panel=MATRIX),
    ] = None,
    track: Annotated[
        Track | None,
        typer.Option(
            help="Which rules the runs follow (see benchmarks/README.md). Default: controlled.",
            rich_help_panel=MATRIX,
        ),
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file with these options and more; options given here override it.",
            rich_help_panel=MATRIX,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any field of a suite file, e.g. optimizer.lr=3e-4, holdout=0.2, "
            "selection=validation, dataset_options.year=2014. May be repeated.",
            rich_help_panel=MATRIX,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Training epochs.", rich_help_panel=TRAINING),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side length of the images in pixels.", rich_help_panel=TRAINING),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Initial weights of the backbone: default, none, or a file.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            help="Label vectors: cooccurrence, random, a GloVe text file, or an .npz file.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data sets. Default: $MLBENCH_DATA.", rich_help_panel=MACHINE
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of the results. Default: results.", rich_help_panel=MACHINE),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=MACHINE),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on this machine.", rich_help_panel=MACHINE),
    ] = None,
    retry_diverged: Annotated[
        bool, typer.Option(help="Run diverged runs again.", rich_help_panel=MACHINE)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Show the plan; run nothing.", rich_help_panel=MACHINE)
    ] = False,
) -> None:
    """Train and score every missing run of a matrix, and print its board."""
    from mlbench.cli import matrix

    flags = {
        "plugins": plugins,
        "datasets": datasets,
        "backbones": backbones,
        "losses": losses,
        "seeds": seeds,
        "track": track,
        "weights": weights,
        "words": words,
        "data": data,
        "results": results,
        "device": device,
        "gpus": gpus,
        "retry_diverged": retry_diverged or None,
        "settings": _given({"epochs": epochs, "image_size": image_size}) or None,
    }
    try:
        asked = matrix.read_matrix(_given(flags), set_ or (), suite)
    except MlbenchError as error:
        matrix.fail_together(error)
    matrix.launch(asked, lambda context: matrix.plan_matrix(asked, context), dry_run)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}
