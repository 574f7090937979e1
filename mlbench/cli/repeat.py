"""``mlbench repeat FILE``: repeat one run exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlbench.cli.console import Data, Device, Results


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
    given = locals() | {"words": (words,) if words else ()}
    from mlbench.cli import matrix, planning
    from mlbench.suite import Suite

    settings = Suite(**{name: given[name] for name in given if name in Suite.model_fields})
    matrix.launch(planning.plan_repetition, file, settings, dry_run=dry_run)
