"""Plan a matrix, carry out what is missing in one process or several, and print its board."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import typer
from rich.markup import escape
from rich.table import Table

from mlbench.boards.variants import variants
from mlbench.cli import show_boards
from mlbench.cli.console import (
    cache_folder,
    console,
    data_folder,
    device_name,
    errors,
    refuse,
    thread_count,
)
from mlbench.cli.progress import Lines, Live, Silent, ending
from mlbench.engine import distributed
from mlbench.engine.distributed import World
from mlbench.executors.local import execute
from mlbench.plan import GivenFiles, Plan, identify, make_plan
from mlbench.suite import COMMAND_LINE, Suite, lay_over, make
from mlbench.suite import read as read_suite
from mlbench.text import count
from mlbench.tracks import merge
from mlbench.types import MlbenchError, Places, SuiteError

INTERRUPTED = "interrupted: finished runs are kept; the same command goes on with the rest"


class Launched(NamedTuple):
    """What a plan is made for.

    Attributes:
        places: where data and results are.
        files: the weights and label vectors that the user named.
        world: the processes of this launch.
    """

    places: Places
    files: GivenFiles
    world: World


def read(flags: Mapping[str, Any], texts: Iterable[str], file: Path | None) -> Suite:
    """Read a suite file, if there is one, and lay the command line over it.

    Raises:
        SuiteError, PluginError: as ``mlbench.suite.make``.
    """
    given = lay_over(flags, texts)
    fields = merge(read_suite(file), given) if file else dict(given)
    cuda = device_name(str(fields.get("device", "auto"))).startswith("cuda")
    fields = {"precision": "bf16" if cuda else "fp32"} | fields
    return make(fields, str(file or COMMAND_LINE), given)


def plan(asked: Suite, launched: Launched) -> Plan:
    """Plan a matrix, with the files that it names by their digests."""
    files = launched.files
    if files.weights_file is not None and len(asked.backbones) > 1:
        raise SuiteError("--weights FILE fits one backbone; name one in --backbones")
    asked = asked.model_copy(update={"words": files.words})
    return make_plan(asked, launched.places, files.weights)


def refuse_together(error: MlbenchError) -> NoReturn:
    """End this command, in each of its processes, with one message.

    Raises:
        MlbenchError: the error itself, if this is the only process.
    """
    if not distributed.launched():
        raise error
    if distributed.join("cpu").leads:
        refuse(error)
    distributed.leave(2)


def launch(asked: Suite, make: Callable[[Launched], Plan], dry_run: bool) -> NoReturn:
    """Start the processes that the user asks for, and carry out a plan in them.

    Args:
        asked: where to run; its matrix is not looked at.
        make: makes the plan, in the leading process.
        dry_run: True only prints the plan.

    Raises:
        typer.Exit: with the exit code of the command.
    """
    device = device_name(asked.device)
    if asked.gpus > 1 and not distributed.launched():
        code = distributed.launch(asked.gpus, sys.argv[1:], device)
        if code == 130:
            errors.print(INTERRUPTED)
        raise typer.Exit(code)
    try:
        if ":" in device and distributed.launched():
            raise SuiteError(f"--device {device} is one device, for several processes; use cuda")
        files = identify(asked.weights, asked.words)
    except MlbenchError as error:
        refuse_together(error)
    places = Places(
        data=asked.data or data_folder(),
        weights=files.weights_file,
        words=files.words_file,
        results=asked.results,
        cache=asked.cache or cache_folder(),
        device=device,
        workers=thread_count() if asked.workers is None else asked.workers,
        checkpoints=asked.keep_checkpoints,
    )
    launched = Launched(places, files, distributed.join(device))
    try:
        code = _plan_and_carry_out(make, launched, dry_run)
    except KeyboardInterrupt:
        if launched.world.leads:
            errors.print(INTERRUPTED)
        raise typer.Exit(130) from None
    if distributed.launched():
        distributed.leave(code)
    raise typer.Exit(code)


def _plan_and_carry_out(make: Callable[[Launched], Plan], launched: Launched, dry: bool) -> int:
    """The leader's exit code, on every process."""
    world = launched.world
    try:
        planned = world.ask_leader(lambda: make(launched))
    except MlbenchError as error:  # raised on every process, so that all end together
        if world.size == 1:
            raise
        if world.leads:
            refuse(error)
        return 2
    if dry:
        if world.leads:
            show(planned)
        return 2 if planned.hopeless else 0
    # All processes wait for the leader: a launcher kills the others when one has ended.
    code: int = world.broadcast(_carry_out(planned, launched.places, world))
    return code


def _carry_out(planned: Plan, places: Places, world: World) -> int:
    if world.leads:
        _complain(planned)
        if planned.hopeless:
            return 2
        if planned.done and not planned.missing:
            runs, are = count(len(planned.done), "run"), "is" if len(planned.done) == 1 else "are"
            console.print(f"Nothing is missing: {runs} {are} in {places.results}.")
    outcomes = []
    if planned.missing:
        command = shlex.join(["mlbench", *sys.argv[1:]])
        with _progress(world, planned) as progress:
            outcomes = execute(planned.missing, places, world, progress, command)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if world.leads:
        for outcome in failed if len(outcomes) > 1 else ():  # a single one was just reported
            errors.print(ending(outcome), style="red", markup=False)
        _print_board(planned, places)
    return 1 if failed or planned.refused or planned.diverged else 0


def _print_board(planned: Plan, places: Places) -> None:
    """Print the rows of this matrix with their ranks on the whole boards, and write all boards."""
    specs = (*planned.missing, *planned.done)
    mine = {(spec.data, spec.track) for spec in specs}
    found = show_boards.read(places.results)
    shown = [
        table for table in found.tables if table.tier == "own" and (table.data, table.track) in mine
    ]
    show_boards.show(shown, {spec.run_id for spec in specs})
    show_boards.write(found)


def _progress(world: World, planned: Plan) -> Silent:
    if not world.leads:
        return Silent()
    names = _variants(planned)
    return Live(names) if errors.is_terminal else Lines(names)


def _variants(planned: Plan) -> dict[str, str]:
    """Run id -> what sets the run apart from others of its method, backbone and loss."""
    specs = planned.specs
    return {spec.run_id: text for spec, text in zip(specs, variants(specs), strict=True)}


def show(planned: Plan) -> None:
    """Print what would run, and why."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "what", "track", "state"):
        table.add_column(column, overflow="fold")
    states = [(spec, f"would run: {planned.why}") for spec in planned.missing]
    states += [(spec, "done") for spec in planned.done]
    states += [(spec, "diverged before") for spec, _ in planned.diverged]
    names = _variants(planned)
    for spec, state in states:
        what = f"{spec.title} {names[spec.run_id]}".strip()
        table.add_row(spec.run_id, escape(what), spec.track, state)
    if table.rows:
        console.print(table)
    _complain(planned)


def _complain(planned: Plan) -> None:
    """Print what cannot run, and why."""
    for refused in planned.refused:
        errors.print(f"refused: {refused.label}: {refused.reason}", style="red", markup=False)
    for spec, error in planned.diverged:
        text = f"diverged before: {spec.run_id}: {error} (--retry-diverged runs it again)"
        errors.print(text, style="red", markup=False)
