"""The flags of ``mlbench run``, in the groups that its help shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlbench.types import Precision, Selection, Track

MATRIX, TRAINING = "What runs", "How it is trained"
LABELS, MACHINE = "Which images and labels", "Where, and on what"

Plugins = Annotated[
    str | None,
    typer.Option(
        help="Names of any kind, with commas; every combination runs.", rich_help_panel=MATRIX
    ),
]
Datasets = Annotated[
    str | None, typer.Option(help="Data sets, with commas.", rich_help_panel=MATRIX)
]
Backbones = Annotated[
    str | None, typer.Option(help="Backbones, with commas.", rich_help_panel=MATRIX)
]
Losses = Annotated[str | None, typer.Option(help="Losses, with commas.", rich_help_panel=MATRIX)]
Seeds = Annotated[str | None, typer.Option(help="Seeds, with commas.", rich_help_panel=MATRIX)]
TrackFlag = Annotated[
    Track | None,
    typer.Option(help="Which question is asked. Default: controlled.", rich_help_panel=MATRIX),
]
Suite = Annotated[
    Path | None, typer.Option(help="A YAML file with all of this.", rich_help_panel=MATRIX)
]
Repeat = Annotated[
    Path | None,
    typer.Option(
        help="Make one run again: the recipe of its page (.yaml), its pack or its record.",
        rich_help_panel=MATRIX,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Over the training images; a budget that replaces the track's.",
        rich_help_panel=TRAINING,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Side in pixels of what a model sees.", rich_help_panel=TRAINING),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Images per step, over all processes.", rich_help_panel=TRAINING),
]
Holdout = Annotated[
    float | None,
    typer.Option(help="Score this part of train, not the test split.", rich_help_panel=LABELS),
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        help="Go on without missing and corrupt images, on a board of its own.",
        rich_help_panel=LABELS,
    ),
]
SelectionFlag = Annotated[
    Selection | None,
    typer.Option(help="Which epoch is scored. Default: last.", rich_help_panel=TRAINING),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Of the backbone: default, none, or a file.", rich_help_panel=TRAINING),
]
Words = Annotated[
    str | None,
    typer.Option(
        help="Label vectors: a GloVe text file or .npz, cooccurrence or random.",
        rich_help_panel=LABELS,
    ),
]
Graph = Annotated[
    str | None,
    typer.Option(
        help="Label graph: cooccurrence, identity or random; several with commas.",
        rich_help_panel=LABELS,
    ),
]
LabelNoise = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE, as in keep=0.4, single_positive=true or flip=0.1: training labels "
        "that are missing or wrong on purpose; may be repeated.",
        rich_help_panel=LABELS,
    ),
]
DatasetOption = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE of every data set, or DATASET.NAME=VALUE of one; may be repeated.",
        rich_help_panel=LABELS,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Where the data sets are. Default: $MLBENCH_DATA.", rich_help_panel=MACHINE),
]
Results = Annotated[Path, typer.Option(help="The store.", rich_help_panel=MACHINE)]
Cache = Annotated[
    Path | None,
    typer.Option(help="Default: $MLBENCH_CACHE or ~/.cache/mlbench.", rich_help_panel=MACHINE),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=MACHINE)
]
PrecisionFlag = Annotated[
    Precision | None,
    typer.Option(help="Default: bf16 on CUDA, fp32 elsewhere.", rich_help_panel=TRAINING),
]
Gpus = Annotated[
    int, typer.Option(min=1, help="Processes on this machine.", rich_help_panel=MACHINE)
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Decoding threads per process.", rich_help_panel=MACHINE)
]
KeepCheckpoints = Annotated[
    bool, typer.Option(help="Keep the trained models.", rich_help_panel=MACHINE)
]
RetryDiverged = Annotated[
    bool, typer.Option(help="Run again what diverged.", rich_help_panel=MACHINE)
]
DryRun = Annotated[
    bool, typer.Option(help="Only list what would run, and why.", rich_help_panel=MACHINE)
]
