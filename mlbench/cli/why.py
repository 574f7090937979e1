"""``mlbench why RUN``: why a run is not done, or how it differs from the one nearest to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlbench.cli.console import Results, console
from mlbench.text import count, shorten
from mlbench.types import StoreError


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
    say(f"{run_id} {one.title}".rstrip(), f"{one.state} {one.detail}".rstrip())
    log = results / "runs" / run_id / "log.txt"
    if one.failure is not None:
        say("remedy", one.failure.remedy or "the reason says it")
        say(f"the end of {log}", "".join(f"\n  {line}" for line in one.failure.log))
        say("command", one.failure.command)
    elif one.state in ("running", "stopped"):
        say("log", str(log))
    if one.state == "queued":
        say("missing", one.why)
    if one.state == "diverged":
        say("remedy", "a lower rate, or grad_clip; --retry-diverged runs it as it is")
    store = Store(results)
    if (record := store.find(run_id)) is not None:
        gone = ", ".join(name for name in record.numbers if installed(name) is None)
        current = f"is current as far as is known; not installed: {gone}" if gone else "is current"
        say("its record", f"{outdated(record.numbers) or current}; made by `{record.command}`")
        others = flat_specs(other for other in store.records() if other.run_id != run_id)
        if (near := nearest(record.spec, others, "this run")) is not None:
            say(f"the nearest, {near[1][:8]}, differs in", shorten(near[0]))


def say(what: str, text: str) -> None:
    """Print a line."""
    console.print(f"{what}: {text}", highlight=False)
