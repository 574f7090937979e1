"""Plan a matrix, execute its missing runs in one or more processes, and print its board."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
import typer
from rich.markup import escape

from mlbench import registry
from mlbench.boards.variants import variants
from mlbench.cli import show_boards
from mlbench.cli.console import (
    cache_folder,
    console,
    data_folder,
    device_name,
    errors,
    plain_table,
    print_error,
    thread_count,
)
from mlbench.cli.progress import Lines, Live, Silent, outcome_line
from mlbench.engine import distributed
from mlbench.engine.distributed import World
from mlbench.engine.model import unsupported
from mlbench.executors.local import execute
from mlbench.plan import GivenFiles, Plan, identify_files, make_plan
from mlbench.suite import COMMAND_LINE, Suite, apply_overrides, make_suite, read_suite
from mlbench.text import count, shorten
from mlbench.tracks import merge
from mlbench.types import MlbenchError, Places, SuiteError

INTERRUPTED = "interrupted: finished runs are kept; repeat the command to run the rest"


class LaunchContext(NamedTuple):
    """What the plan of a launch needs.

    Attributes:
        places: where data and results are.
        files: weights and label vectors that the user named.
        world: the processes of this launch.
        measure: measure how fast the models are, after the runs.
    """

    places: Places
    files: GivenFiles
    world: World
    measure: bool


def read_matrix(flags: Mapping[str, Any], texts: Iterable[str], file: Path | None) -> Suite:
    """Read a suite file, if there is one, and apply the command line to it.

    Raises:
        SuiteError, PluginError: as ``mlbench.suite.make_suite``.
    """
    given = apply_overrides(flags, texts)
    fields = merge(read_suite(file), given) if file else dict(given)
    device = torch.device(device_name(str(fields.get("device", "auto"))))
    half = device.type == "cuda" and unsupported("bf16", device) is None
    fields = {"precision": "bf16" if half else "fp32"} | fields
    return make_suite(fields, str(file or COMMAND_LINE), given)


def plan_matrix(suite: Suite, context: LaunchContext) -> Plan:
    """Plan a matrix; files of weights and vectors are identified by their digests."""
    files = context.files
    if files.weights_file is not None and len(suite.backbones) > 1:
        raise SuiteError("--weights FILE fits one backbone only; name one with --backbones")
    suite = suite.model_copy(update={"words": files.words, "init": files.init})
    return make_plan(suite, context.places, files.weights, context.world.size)


def fail_together(error: MlbenchError) -> NoReturn:
    """End all processes of this command with one message.

    Raises:
        MlbenchError: the error itself, if this is the only process.
    """
    if not distributed.launched():
        raise error
    if distributed.join("cpu").leads:
        print_error(error)
    distributed.leave(2)


def places_of(suite: Suite, files: GivenFiles) -> Places:
    """Where the runs of a suite find and leave files."""
    return Places(
        data=suite.data or data_folder(),
        weights=files.weights_file,
        words=files.words_file,
        init=files.init_file,
        results=suite.results,
        cache=suite.cache or cache_folder(),
        cache_limit=suite.cache_limit,
        image_cache=suite.image_cache,
        device=device_name(suite.device),
        workers=thread_count() if suite.workers is None else suite.workers,
        keep=suite.keep,
        checkpoint_every=suite.checkpoint_every,
        deterministic=suite.deterministic,
        activation_checkpointing=suite.activation_checkpointing,
    )


def launch(suite: Suite, make: Callable[[LaunchContext], Plan], dry_run: bool) -> NoReturn:
    """Start the requested processes and execute a plan in them.

    Args:
        suite: where to run; its matrix is ignored.
        make: makes the plan, in the leading process.
        dry_run: print the plan and run nothing.

    Raises:
        typer.Exit: with the exit code of the command.
    """
    device = device_name(suite.device)
    if suite.gpus > 1 and not distributed.launched():
        code = distributed.launch(suite.gpus, sys.argv[1:], device)
        if code == 130:
            errors.print(INTERRUPTED)
        raise typer.Exit(code)
    try:
        if ":" in device and distributed.launched():
            raise SuiteError(
                f"--device {device} is a single device for several processes; use --device cuda"
            )
        files = identify_files(suite.weights, suite.words, suite.init)
    except MlbenchError as error:
        fail_together(error)
    places = places_of(suite, files)
    context = LaunchContext(places, files, distributed.join(device), suite.measure)
    try:
        code = _plan_and_execute(make, context, dry_run)
    except KeyboardInterrupt:
        if context.world.leads:
            errors.print(INTERRUPTED)
        raise typer.Exit(130) from None
    if distributed.launched():
        distributed.leave(code)
    raise typer.Exit(code)


def _plan_and_execute(
    make: Callable[[LaunchContext], Plan], context: LaunchContext, dry: bool
) -> int:
    """Return the exit code of the leading process, in every process."""
    world = context.world
    try:
        planned = world.ask_leader(lambda: make(context))
    except MlbenchError as error:  # raised on every process, so that all end together
        if world.size == 1:
            raise
        if world.leads:
            print_error(error)
        return 2
    if dry:
        if world.leads:
            print_plan(planned)
        return 2 if planned.all_refused else 0
    # All processes wait for the leader: a launcher kills the rest when one ends.
    code: int = world.broadcast(_execute(planned, context))
    return code


def _execute(planned: Plan, context: LaunchContext) -> int:
    places, world = context.places, context.world
    if world.leads:
        print_refusals(planned)
        if planned.all_refused:
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
        for outcome in failed if len(outcomes) > 1 else ():  # a single failure was already reported
            errors.print(outcome_line(outcome), style="red", markup=False)
        if context.measure:
            _follow_up(planned, places)
        _print_board(planned, places)
    return 1 if failed or planned.refused or planned.diverged else 0


def _follow_up(planned: Plan, places: Places) -> None:
    """Call what plugins add to a matrix; one that fails hides no board."""
    for plugin in registry.plugins("follow_up"):
        try:
            plugin.load()(planned.specs, places)
        except MlbenchError as error:
            print_error(error)


def _print_board(planned: Plan, places: Places) -> None:
    """Print the rows of this matrix, ranked on their whole boards, and write all boards."""
    specs = (*planned.missing, *planned.done)
    wanted = {(spec.data, spec.track, spec.init) for spec in specs}
    found = show_boards.read(places.results)
    shown = [
        table
        for table in found.tables
        if table.tier == "own" and (table.data, table.track, table.init) in wanted
    ]
    show_boards.show(shown, {spec.run_id for spec in specs})
    show_boards.write(found)


def _progress(world: World, planned: Plan) -> Silent:
    if not world.leads:
        return Silent()
    names = _variants(planned)
    return Live(names) if errors.is_terminal else Lines(names)


def _variants(planned: Plan) -> dict[str, str]:
    """Map run ids to the settings in which runs of one method, backbone and loss differ."""
    specs = planned.specs
    return {spec.run_id: text for spec, text in zip(specs, variants(specs), strict=True)}


def print_plan(planned: Plan) -> None:
    """Print which runs would be executed, and why."""
    table = plain_table(("run", "what", "track", "state"))
    states = [(spec, f"would run: {planned.why[spec.run_id]}") for spec in planned.missing]
    states += [(spec, "done") for spec in planned.done]
    states += [(spec, "diverged before") for spec, _ in planned.diverged]
    names = _variants(planned)
    for spec, state in states:
        what = f"{spec.title} {names[spec.run_id]}".strip()
        table.add_row(spec.run_id, escape(what), spec.track, state)
    if table.rows:
        console.print(table)
    print_refusals(planned)


def print_refusals(planned: Plan) -> None:
    """Print which runs cannot be executed, and why; those of one reason together."""
    labels: dict[str, list[str]] = {}
    for refused in planned.refused:
        labels.setdefault(refused.reason, []).append(refused.label)
    for reason, of_it in labels.items():
        errors.print(f"refused: {shorten(of_it)}: {reason}", style="red", markup=False)
    for spec, error in planned.diverged:
        text = f"diverged before: {spec.run_id}: {error} (--retry-diverged runs it again)"
        errors.print(text, style="red", markup=False)
