"""``mlbench repeat FILE``: repeat one run exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import Data, Device, Results

if TYPE_CHECKING:
    from mlbench.cli.matrix import LaunchContext
    from mlbench.plan import Plan


def repeat(
    file: Annotated[
        Path, typer.Argument(help="A run file (.yaml), a record (.json) or a pack (.zip).")
    ],
    weights: Annotated[
        str | None, typer.Option(help="The weights file of the backbone, if the run used one.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="The model that the run started from, if any.")
    ] = None,
    words: Annotated[
        str | None, typer.Option(help="The file of label vectors, if the run used one.")
    ] = None,
    data: Data = None,
    results: Results = Path("results"),
    device: Device = "auto",
    gpus: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    retry_diverged: Annotated[bool, typer.Option(help="Run again if the run diverged.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the plan; run nothing.")] = False,
) -> None:
    """Repeat one run exactly, from its run file, record or pack."""
    from mlbench.cli import matrix
    from mlbench.suite import Suite

    settings = Suite(
        weights=weights,
        init=init,
        words=(words,) if words else (),
        data=data,
        results=results,
        device=device,
        gpus=gpus,
        retry_diverged=retry_diverged,
    )
    matrix.launch(settings, lambda context: _plan(file, context, retry_diverged), dry_run)


def _plan(file: Path, context: LaunchContext, retry_diverged: bool) -> Plan:
    """Plan the run that a file describes.

    Raises:
        SuiteError: the file describes no run that can be repeated.
        PluginError: a plugin is not installed, or is of another distribution or version.
        WeightsError: the weights or label vectors are not those of the run.
        DataError: the data differ from those of the run.
    """
    import torch

    from mlbench import run_file
    from mlbench.cli.console import errors
    from mlbench.data.open import open_run
    from mlbench.numbers import outdated
    from mlbench.one_run import commit, environment
    from mlbench.plan import compare_with_store
    from mlbench.types import DataError, SuiteError

    places = context.places
    run = run_file.read_run(file)
    current = environment(torch.device(places.device), context.world, run.spec)
    run_file.assert_same_plugins(file, run, current)
    run_file.assert_same_files(
        run.spec, context.files.weights, context.files.words, context.files.init
    )
    spec = run.spec
    splits = open_run(spec, places)
    if splits.digest != spec.data:
        raise DataError(
            f"the run used {run.identity or spec.dataset} (digest {spec.data}), but the data here "
            f"are {splits.identity} (digest {splits.digest}), with other images or labels; name "
            "the folder of the original data with --data DIR"
        )
    if context.world.size != spec.processes:
        raise SuiteError(
            f"{file}: results depend on the number of processes, which was {spec.processes} and "
            f"is {context.world.size}; repeat it with --gpus {spec.processes}"
        )
    planned = compare_with_store([spec], [], lambda _: splits, places, retry_diverged)
    if run.run_id and (reason := outdated(run)):
        errors.print(f"the run's numbers may differ: {reason}")
    for line in run_file.environment_differences(run, current, commit()):
        errors.print(line)
    for spec in planned.done:
        errors.print(
            f"run {spec.run_id} is already in {places.results}; to repeat it, name another folder "
            "with --results"
        )
    return planned
