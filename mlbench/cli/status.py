"""``mlbench status``: where every run of a store is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mlbench.cli.console import Results, console, plain_table
from mlbench.text import count


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
