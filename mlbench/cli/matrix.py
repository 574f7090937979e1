"""Plan a matrix, execute its missing runs, and print its board."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from mlbench import registry
from mlbench.boards.variants import variants
from mlbench.cli import show_boards
from mlbench.cli.console import console, errors, plain_table, print_error, thread_count
from mlbench.cli.planning import Prepared, plan_safely
from mlbench.cli.progress import Lines, Live, Reminder, Tracked, outcome_line
from mlbench.executors import STALL, Executor, Outcome, make_jobs
from mlbench.executors.forking import call, device_names, showing
from mlbench.executors.sharing import QueuedRun, announce, carry_out_all
from mlbench.registry import Kind, Plugin
from mlbench.suite import Suite, as_seconds
from mlbench.text import command_line, count, shorten
from mlbench.types import MlbenchError, Plan, RunSpec, SuiteError

EXIT_UNFINISHED = 75
"""The exit code if the budget is used up and runs are left (``EX_TEMPFAIL``)."""
INTERRUPTED = "interrupted: finished runs are kept; repeat the command to run the rest"


def launch(
    function: Callable[..., Prepared], *args: Any, dry_run: bool, stall: str | None = None
) -> NoReturn:
    """Plan as ``plan_safely`` does, execute what is missing, and print the board.

    A ``dry_run`` prints the plan alone; ``stall`` is as the user gave it.

    Raises:
        typer.Exit: with the exit code of the command.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SuiteError(
            "mlbench starts the processes of a run itself: leave out torchrun, and give --processes"
        )
    try:
        patience = STALL if stall is None else as_seconds(stall)
    except ValueError as error:
        raise SuiteError(f"--stall {stall}: {error}") from error
    with _interruptible():
        with Reminder("planning"):
            prepared = plan_safely(function, *args, stall=patience)
        if dry_run:
            print_plan(prepared.plan)
            for line in forecast(prepared)[1]:
                console.print(line, highlight=False)
            planned = prepared.plan
            raise typer.Exit(2 if planned.all_refused else bool(planned.refused))
        raise typer.Exit(_execute_and_show(prepared))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block in an orderly way, with codes 130 and 143."""

    def terminate(*_: object) -> NoReturn:
        codes.append(143)
        raise KeyboardInterrupt

    codes = [130]
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        errors.print(INTERRUPTED)
        raise typer.Exit(codes[-1]) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def forecast(prepared: Prepared) -> tuple[dict[str, float], list[str]]:
    """Run id -> expected seconds of a missing run, as far as plugins know; and a text for all."""
    missing, suite = prepared.plan.missing, prepared.suite
    found: list[tuple[dict[str, float], list[str]]] = []
    if missing and suite.executor == "local":
        found = _call_all(prepared, "forecast", missing, _threads(suite))
    return found[-1] if found else ({}, [])


def execute(prepared: Prepared, progress: Lines, command: str) -> list[Outcome]:
    """Carry out the missing runs of a plan; return their outcomes.

    Raises:
        MlbenchError: the results cannot be written, or this machine lacks what is asked for.
    """
    suite, specs, root = prepared.suite, prepared.plan.missing, prepared.places.results
    if not specs:
        return []
    executor: Executor = registry.find("executor", suite.executor).load()
    limits: dict[str, Any] = {"threads": _threads(suite), "stall": suite.stall}
    takes: dict[str, float] = {}
    if suite.budget is not None:
        limits["ends"] = time.time() + suite.budget
        takes, _ = forecast(prepared)
    jobs = [
        job.model_copy(update={**limits, "takes": takes.get(job.spec.run_id, 0.0)})
        for job in make_jobs(specs, prepared.places, command, prepared.plan.replaces)
    ]
    why = prepared.plan.why
    queue = [QueuedRun(run_id=s.run_id, title=s.title, why=why[s.run_id]) for s in specs]
    shown = Tracked(suite.tracker, root, prepared.plan, progress) if suite.tracker else progress
    with announce(root, queue), shown:
        return carry_out_all(executor, jobs, prepared.options, shown, progress.wait)


def _threads(suite: Suite) -> int | None:
    """CPU threads for each process of a run; None leaves torch's default."""
    outermost = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # of nested teams
    if outermost.isdecimal():
        return int(outermost)
    side_by_side = suite.jobs * suite.processes
    return None if side_by_side == 1 else max(thread_count() // side_by_side, 1)


def _execute_and_show(prepared: Prepared) -> int:
    """Return the exit code of the command."""
    planned, places = prepared.plan, prepared.places
    for dataset, how in planned.read.items():
        given = prepared.suite.dataset_options.get(dataset, {}).items()
        typed = [dataset, *(["--data", str(places.data)] if places.data else [])]
        typed += [
            f"--option={name}={json.dumps(value, ensure_ascii=False)}" for name, value in given
        ]
        text = f"{dataset}: {how}\n  all of it: mlbench data look {shlex.join(typed)}"
        console.print(text, highlight=False, soft_wrap=True)
    print_refusals(planned)
    if planned.all_refused:
        return 2
    if planned.done and not planned.missing:
        runs, are = count(len(planned.done), "run"), "is" if len(planned.done) == 1 else "are"
        console.print(f"Nothing is missing: {runs} {are} in {places.results}.")
    titles = titles_of(planned)
    progress = Live(titles) if errors.is_terminal else Lines(titles)
    outcomes = execute(prepared, progress, command_line())
    left = [one for one in outcomes if prepared.suite.budget is not None and not one.decided]
    failed = [one for one in outcomes if one not in left and (one.record is None or one.error)]
    if len(outcomes) > 1:  # a single failure was already reported
        print_failures(failed, titles)
    if left:
        runs = f"{len(left)} of {count(len(outcomes), 'run')}"
        errors.print(f"{runs} did not fit into the budget; repeat the command to go on")
    elif prepared.suite.measure and prepared.suite.executor == "local":
        _call_all(prepared, "follow_up", prepared.plan.specs)
    wanted = {spec.run_id for spec in (*planned.missing, *planned.done)}
    try:
        found = show_boards.read(places.results)
        # The rows of this matrix, ranked on their whole boards.
        shown = [table for table in found.tables if not wanted.isdisjoint(table.run_ids)]
        show_boards.show(shown, places.results, wanted)
        show_boards.write(found)
    except MlbenchError as error:  # a full disk, say; the runs took place
        print_error(error)
        return 1
    if failed or planned.refused or planned.diverged:
        return 1
    return EXIT_UNFINISHED if left else 0


def print_failures(failed: Sequence[Outcome], titles: Mapping[str, str]) -> None:
    """Print failures again, below the lines of all runs, grouped by reason.

    ``titles`` are as ``titles_of`` gives them.
    """
    alike: dict[str, list[Outcome]] = {}
    for outcome in failed:
        # Errors of the network hold an address of memory and the id of a request.
        reason = re.sub(r"0x[0-9a-f]+|Request ID: [\w-]+", "", outcome.error or "")
        alike.setdefault(reason, []).append(outcome)
    for same in alike.values():
        line = outcome_line(same[0], brief=True)
        if len(same) > 1:
            several = shorten([titles.get(one.spec.run_id, one.spec.title) for one in same])
            reason = (same[0].error or "not finished").partition("\n")[0]
            line = f"{count(len(same), 'run')} FAILED: {several}: {reason}"
        errors.print(line, style="red")


def call_plugin(plugin: Plugin, *args: Any) -> Any:
    """Call what a plugin adds to a matrix, without the last argument."""
    return plugin.load()(*args[:-1])


def _call_all(prepared: Prepared, kind: Kind, specs: Sequence[RunSpec], *more: Any) -> list[Any]:
    """Call the plugins of a kind with runs and their places; return their results.

    Each is called in a process that sees the runs' first device; a failure stops no other plugin.
    """
    answers, devices = [], prepared.options.devices[:1]
    for plugin in registry.plugins(kind):
        with Reminder(f"{kind} {plugin.name}") as reminder:
            try:
                answer = call(
                    "mlbench.cli.matrix:call_plugin",
                    *(plugin, specs, prepared.places, *more),
                    stall=prepared.suite.stall,
                    relay=reminder.relay,
                    variables=showing(device_names(devices)) if devices else {},
                )
                answers.append(answer)
            except MlbenchError as error:
                errors.print(f"{plugin.name}: {error}", style="red")
    return answers


def titles_of(planned: Plan) -> dict[str, str]:
    """Run id -> title, with the settings in which runs of equal titles differ."""
    found = zip(planned.specs, variants(planned.specs), strict=True)
    return {spec.run_id: f"{spec.title} {variant}".rstrip() for spec, variant in found}


def print_plan(planned: Plan) -> None:
    """Print which runs would be executed, and why."""
    table = plain_table(("run", "what", "track", "state"))
    states = [(spec, f"would run: {planned.why[spec.run_id]}") for spec in planned.missing]
    states += [(spec, "done") for spec in planned.done]
    states += [(spec, "diverged before") for spec, _ in planned.diverged]
    titles = titles_of(planned)
    for spec, state in states:
        table.add_row(spec.run_id, titles[spec.run_id], spec.track, state)
    if table.rows:
        console.print(table)
    print_refusals(planned)


def print_refusals(planned: Plan) -> None:
    """Print which runs cannot be executed and why, and which may come from older code."""
    if planned.edited:
        errors.print(
            f"{', '.join(planned.edited)} changed since some of the runs that are done; if that "
            "changes their numbers, raise NUMBERS in the plugin's module to have them made again"
        )
    labels: dict[str, list[str]] = {}
    for refused in planned.refused:
        labels.setdefault(refused.reason, []).append(refused.label)
    for reason, of_it in labels.items():
        errors.print(f"refused: {shorten(of_it)}: {reason}", style="red")
    for spec, error in planned.diverged:
        text = f"diverged before: {spec.run_id}: {error} (--retry-diverged runs it again)"
        errors.print(text, style="red")
