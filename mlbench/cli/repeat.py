"""``mlbench repeat FILE``: repeat one run exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlbench.cli.console import Data, Device, Results

if TYPE_CHECKING:
    from mlbench.cli.planning import Prepared
    from mlbench.plan import Veto
    from mlbench.run_file import RunFile
    from mlbench.suite import Suite
    from mlbench.types import Places, Plan


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
    processes: Annotated[
        int, typer.Option("--processes", "--gpus", min=1, help="Processes that train together.")
    ] = 1,
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
        processes=processes,
        retry_diverged=retry_diverged,
    )
    matrix.launch(plan_repetition, file, settings, dry_run=dry_run)


def plan_repetition(file: Path, suite: Suite, veto: Veto) -> Prepared:
    """Plan the run that a run file, a record or a pack describes; of a suite, where to run counts.

    Raises:
        SuiteError: the file describes no run that can be repeated.
        PluginError: a plugin is not installed, or is of another distribution or version.
        WeightsError: the weights or label vectors are not those of the run.
        DataError: the data differ from those of the run.
    """
    import torch

    from mlbench import run_file
    from mlbench.cli.planning import prepare
    from mlbench.data.open import open_run
    from mlbench.engine.distributed import World
    from mlbench.plan import compare_with_store
    from mlbench.provenance import environment
    from mlbench.types import DataError, SuiteError

    def plan(named: Suite, places: Places) -> Plan:
        spec, processes = run.spec, World(size=suite.processes)
        current = environment(torch.device(places.device), processes, spec)
        run_file.assert_same_plugins(file, run, current)
        run_file.assert_same_files(spec, named.weights, named.words, named.init)
        splits = open_run(spec, places)
        if splits.digest != spec.data:
            raise DataError(
                f"the run used {run.identity or spec.dataset} (digest {spec.data}), but the data "
                f"here are {splits.identity} (digest {splits.digest}), with other images or "
                "labels; name the folder of the original data with --data DIR"
            )
        if spec.trained_by(suite.processes) != spec:
            raise SuiteError(
                f"{file}: results depend on the number of processes, which was {spec.processes} "
                f"and is {suite.processes}; repeat it with --processes {spec.processes}"
            )
        again = suite.retry_diverged
        planned = compare_with_store([spec], [], lambda _: splits, places, again, veto)
        _compare(run, current, planned, places)
        return planned

    run = run_file.read_run(file)
    return prepare(suite, plan)


def _compare(run: RunFile, current: dict[str, Any], planned: Plan, places: Places) -> None:
    """Print in what this machine differs from that of the run, and whether it is done already."""
    from mlbench import run_file
    from mlbench.cli.console import errors
    from mlbench.numbers import outdated
    from mlbench.provenance import commit

    if run.run_id and (reason := outdated(run.numbers)):
        errors.print(f"the run's numbers may differ: {reason}")
    for line in run_file.environment_differences(run, current, commit()):
        errors.print(line)
    for spec in planned.done:
        errors.print(
            f"run {spec.run_id} is already in {places.results}; to repeat it, name another folder "
            "with --results"
        )
