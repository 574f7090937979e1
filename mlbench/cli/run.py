"""``mlbench run``: train, evaluate and rank every combination of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import signature
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from mlbench.types import Keep, SuiteError, Track

matrix_option = partial(typer.Option, rich_help_panel="What to run")
training_option = partial(typer.Option, rich_help_panel="Training")
machine_option = partial(typer.Option, rich_help_panel="Machine")

EXAMPLES = """
Examples:

  mlbench run --plugins ssgrl,msrn

  mlbench run --plugins gap,csra,asl --datasets voc2007 --data ~/data --seeds 0,1,2

  mlbench run --suite suite.yaml --set optimizer.lr=3e-4 --set graph=cooccurrence,identity
"""

OTHERWISE = {
    "--lr": "optimizer.lr=3e-4",
    "--graph": "graph=identity",
    "--label-noise": "label_noise.keep=0.4",
    "--dataset-option": "dataset_options.year=2014",
}
"""Option -> what to write with ``--set``, where the names differ or there is no plain default."""


def refuse_fields(arguments: Sequence[str]) -> None:
    """Refuse options that are fields of a suite or settings, which ``--set`` takes.

    Raises:
        SuiteError: there is such an option; the message says what to write, with its value.
    """
    options = {"help", *signature(run).parameters}
    for argument, following in pairwise([*arguments, ""]):
        name, _, value = argument.partition("=")
        field, _, example = OTHERWISE.get(name, name[2:].replace("-", "_")).partition("=")
        if not name.startswith("--") or field in options:
            continue
        from mlbench.suite import Suite
        from mlbench.types import Settings

        fields = Suite.model_fields | Settings.model_fields
        if (first := field.partition(".")[0]) not in fields:
            continue
        example = example or str(fields[first].default).replace("False", "true")
        value = value or ("" if following.startswith("-") else following) or example
        if "=" in value:  # as in --dataset-option year=2014
            field, value = f"{first}.{value}".split("=", 1)
        raise SuiteError(f"mlbench run has no {name}; give --set {quote(f'{field}={value}')}")


def run(
    plugins: Annotated[
        str | None,
        matrix_option(help="Plugins of any kind, separated by commas; every combination runs."),
    ] = None,
    datasets: Annotated[
        str | None, matrix_option(help="Data sets, separated by commas. Default: synthetic.")
    ] = None,
    backbones: Annotated[
        str | None, matrix_option(help="Backbones, separated by commas. Default: set by the track.")
    ] = None,
    losses: Annotated[
        str | None, matrix_option(help="Losses, separated by commas. Default: set by the track.")
    ] = None,
    seeds: Annotated[
        str | None, matrix_option(help="Seeds, separated by commas. Default: 0.")
    ] = None,
    track: Annotated[
        Track | None,
        matrix_option(
            help="Which rules the runs follow (see benchmarks/README.md). Default: controlled."
        ),
    ] = None,
    suite: Annotated[
        Path | None,
        matrix_option(
            help="A YAML file with these options and more; options given here override it."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        matrix_option(
            "--set",
            metavar="NAME=VALUE",
            help="Any field of a suite file, e.g. optimizer.lr=3e-4, holdout=0.2, "
            "selection=validation, dataset_options.year=2014. May be repeated.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        # Messages about data sets name this option for every command.
        matrix_option(metavar="NAME=VALUE", hidden=True, help="--set dataset_options.NAME=VALUE."),
    ] = None,
    epochs: Annotated[int | None, training_option(min=1, help="Training epochs.")] = None,
    image_size: Annotated[
        int | None, training_option(min=1, help="Side length of the images in pixels.")
    ] = None,
    weights: Annotated[
        str | None,
        training_option(help="Initial weights of the backbone: default, none, or a file."),
    ] = None,
    init: Annotated[
        str | None,
        training_option(help="A trained model to start from: the folder of a run, or its file."),
    ] = None,
    words: Annotated[
        str | None,
        training_option(
            help="Label vectors: cooccurrence, random, a GloVe text file, or an .npz file."
        ),
    ] = None,
    data: Annotated[
        Path | None, machine_option(help="Folder of the data sets. Default: $MLBENCH_DATA.")
    ] = None,
    results: Annotated[
        Path | None, machine_option(help="Folder of the results. Default: results.")
    ] = None,
    device: Annotated[str | None, machine_option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    processes: Annotated[
        int | None,
        machine_option(
            "--processes",
            "--gpus",
            min=1,
            help="Processes that train a run together; on GPUs, one for each. Default: 1.",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        machine_option(help="Numbers of the GPUs to fill with runs, e.g. 0,1,2,3. Default: 0."),
    ] = None,
    jobs: Annotated[
        int | None,
        machine_option(min=1, help="Runs at a time; with --devices, on each. Default: 1."),
    ] = None,
    stall: Annotated[
        str | None, machine_option(help="End a run without progress for this long. Default: 10m.")
    ] = None,
    budget: Annotated[
        str | None,
        machine_option(
            metavar="TIME",
            help="Stop after this long, e.g. 2h, and begin no run that would not fit. Exit code "
            "75: runs are left, with which the same command goes on.",
        ),
    ] = None,
    tracker: Annotated[
        str | None, machine_option(help="What is told of losses and scores, e.g. tensorboard.")
    ] = None,
    executor: Annotated[
        str | None, machine_option(help="What carries out the runs. Default: local.")
    ] = None,
    keep: Annotated[
        Keep | None,
        machine_option(
            help="Which trained models to keep: all (the default), none, or the best of each "
            "method and backbone on a board."
        ),
    ] = None,
    checkpoint_every: Annotated[
        float | None,
        machine_option(
            min=0, metavar="MINUTES", help="How often a run's state is saved. Default: 10."
        ),
    ] = None,
    deterministic: Annotated[
        bool, machine_option(help="Repeat results to the bit; slower on CUDA.")
    ] = False,
    retry_diverged: Annotated[bool, machine_option(help="Run diverged runs again.")] = False,
    dry_run: Annotated[
        bool, machine_option(help="Show the plan, and estimate time, memory and disk; run nothing.")
    ] = False,
) -> None:
    """Train and score every missing run of a matrix, and print its board."""
    given = {k: v for k, v in locals().items() if v is not None and v is not False}
    from mlbench.cli import matrix, planning
    from mlbench.suite import Suite

    flags = {name: value for name, value in given.items() if name in Suite.model_fields}
    if settings := {name: given[name] for name in ("epochs", "image_size") if name in given}:
        flags["settings"] = settings
    changes = [*(set_ or ()), *(f"dataset_options.{text}" for text in option or ())]
    matrix.launch(planning.plan_matrix, flags, changes, suite, dry_run=dry_run, stall=stall)
