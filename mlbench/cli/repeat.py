"""``mlbench repeat FILE``: carry out one run exactly as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlbench.cli.matrix import Launched
    from mlbench.plan import Plan


def repeat(
    file: Annotated[
        Path, typer.Argument(help="A run's recipe (.yaml), record (.json) or pack (.zip).")
    ],
    weights: Annotated[
        str | None, typer.Option(help="The file that the backbone started from, if any.")
    ] = None,
    words: Annotated[
        str | None, typer.Option(help="The file of label vectors that the run read, if any.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data sets. Default: $MLBENCH_DATA.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    gpus: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    retry_diverged: Annotated[bool, typer.Option(help="Run it again if it diverged.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would run, and why.")] = False,
) -> None:
    """Repeat one run from its recipe, record or pack."""
    from mlbench.cli import matrix
    from mlbench.suite import Suite

    where = Suite(
        weights=weights,
        words=(words,) if words else (),
        data=data,
        results=results,
        device=device,
        gpus=gpus,
        retry_diverged=retry_diverged,
    )
    matrix.launch(where, lambda launched: _plan(file, launched, retry_diverged), dry_run)


def _plan(file: Path, launched: Launched, retry_diverged: bool) -> Plan:
    """Plan the run of a file.

    Raises:
        SuiteError: the file describes no run that can be repeated.
        PluginError: a plugin is missing here, or is of another distribution or version.
        WeightsError: the weights or label vectors are not those of the run.
        DataError: the data here are not those of the run.
    """
    import torch

    from mlbench import recipe
    from mlbench.cli.console import errors
    from mlbench.data.open import open_run
    from mlbench.one_run import commit, environment
    from mlbench.plan import compare_with_store
    from mlbench.types import DataError

    places = launched.places
    told = recipe.read_file(file)
    here = environment(torch.device(places.device), launched.world, told.spec)
    recipe.refuse_other_plugins(file, told, here)
    recipe.refuse_other_files(told.spec, launched.files.weights, launched.files.words)
    spec = told.spec
    splits = open_run(spec, places)
    if splits.digest != spec.data:
        raise DataError(
            f"the run was on {told.identity or spec.dataset} (digest {spec.data}), and the data "
            f"here are {splits.identity} (digest {splits.digest}): other images or labels; name "
            "the folder of the run's own with --data DIR"
        )
    planned = compare_with_store([spec], [], lambda _: splits, places, retry_diverged)
    for line in recipe.differences(told, here, commit()):
        errors.print(line, markup=False, highlight=False)
    for spec in planned.done:
        errors.print(
            f"run {spec.run_id} is in {places.results} already; name another store with --results "
            "to make it again",
            markup=False,
            highlight=False,
        )
    return planned
