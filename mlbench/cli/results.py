"""``mlbench leaderboard``, ``status`` and ``why``: what a store holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from mlbench.cli.console import Edition, OnlyTrack, Results, console, plain_table
from mlbench.text import count, shorten
from mlbench.types import StoreError


def leaderboard(
    results: Results = Path("results"),
    dataset: Edition = None,
    track: OnlyTrack = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns to show in a terminal, as in mAP,interval,GMACs.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with every number.")] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Print tables for a paper: mAP and costs.")
    ] = False,
) -> None:
    """Print a board for every data set and track, and write the boards to results/leaderboards/."""
    from mlbench.boards import render
    from mlbench.cli import show_boards

    chosen = show_boards.column_names(columns)
    found = show_boards.read(results)
    # A misspelt data set must end the command before anything is written.
    selected = found.select(dataset, track)
    if markdown:
        typer.echo(render.markdown(selected), nl=False)
    if csv:
        typer.echo(render.csv(*selected), nl=False)
    if latex:
        typer.echo(render.latex(selected), nl=False)
    if not (markdown or csv or latex):
        show_boards.show(selected, results, columns=chosen)
    show_boards.write(found)


def status(results: Results = Path("results")) -> None:
    """Show which runs are queued, running, done or failed, and why."""
    from mlbench.executors.run_status import STATES, overview

    found = overview(results)
    table = plain_table(("run", "what", "state", ""))
    for run_id, one in found.items():
        if one.state in ("diverged", "running", "stopped", "failed"):
            table.add_row(run_id, one.title, one.state, one.detail)
    if table.rows:
        console.print(table)
    totals = Counter(one.state for one in found.values())
    said = ", ".join(f"{totals[state]:,} {state}" for state in STATES if totals[state])
    console.print(f"{count(len(found), 'run')} in {results}: {said or 'nothing yet'}")
    if totals["failed"] or totals["stopped"]:
        console.print("`mlbench why RUN` says more; repeat `mlbench run` to go on with them.")
    if totals["diverged"]:
        console.print("`mlbench run --retry-diverged` runs diverged runs again.")


def why(
    run: Annotated[str, typer.Argument(help="Id of a run, or its beginning.")],
    results: Results = Path("results"),
) -> None:
    """Say why a run failed, where it is, or in which settings it differs from the nearest one."""
    from mlbench.executors.run_status import overview
    from mlbench.numbers import installed, outdated
    from mlbench.plan import flat_specs, nearest
    from mlbench.store import Store

    found = overview(results)
    ids = [run_id for run_id in found if run_id.startswith(Path(run).name)]
    if len(ids) != 1:
        those = f"{len(ids)} runs in {results} begin with {run!r}: {shorten(ids)}"
        none = f"none of the {count(len(found), 'run')} in {results} begins with {run!r}"
        raise StoreError(
            f"{those if ids else none}; `mlbench run --dry-run` lists the runs of a matrix and "
            "says why each is missing"
        )
    run_id, one = ids[0], found[ids[0]]
    _say(f"{run_id} {one.title}".rstrip(), f"{one.state} {one.detail}".rstrip())
    log = results / "runs" / run_id / "log.txt"
    if one.failure is not None:
        _say("remedy", one.failure.remedy or "the reason says it")
        _say(f"the end of {log}", "".join(f"\n  {line}" for line in one.failure.log))
        _say("command", one.failure.command)
    elif one.state in ("running", "stopped"):
        _say("log", str(log))
    if one.state == "queued":
        _say("missing", one.why)
    if one.state == "diverged":
        _say("remedy", "a lower rate, or grad_clip; --retry-diverged runs it as it is")
    store = Store(results)
    if (record := store.find(run_id)) is not None:
        gone = ", ".join(name for name in record.numbers if installed(name) is None)
        current = f"is current as far as is known; not installed: {gone}" if gone else "is current"
        _say("its record", f"{outdated(record.numbers) or current}; made by `{record.command}`")
        others = flat_specs(other for other in store.records() if other.run_id != run_id)
        if (near := nearest(record.spec, others, "this run")) is not None:
            _say(f"the nearest, {near[1][:8]}, differs in", shorten(near[0]))


def _say(what: str, text: str) -> None:
    """Print a line."""
    console.print(f"{what}: {text}", highlight=False)
