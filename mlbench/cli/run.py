"""``mlbench run``: train, evaluate, measure and rank every combination of a matrix."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlbench.cli.console import cache_folder, console, data_folder, errors, refuse
from mlbench.cli.device import device_name, thread_count
from mlbench.types import (
    MlbenchError,
    Places,
    Precision,
    SuiteError,
    Track,
    WeightsError,
)

if TYPE_CHECKING:
    from mlbench.cli.plan import Plan
    from mlbench.cli.progress import Silent
    from mlbench.engine.distributed import World
    from mlbench.suite import Suite


INTERRUPTED = "interrupted: finished runs are kept, the same command goes on with the rest"


def run(
    plugins: Annotated[
        str | None, typer.Option(help="Names of any kind, with commas; every combination runs.")
    ] = None,
    datasets: Annotated[str | None, typer.Option(help="Data sets, with commas.")] = None,
    backbones: Annotated[str | None, typer.Option(help="Backbones, with commas.")] = None,
    losses: Annotated[str | None, typer.Option(help="Losses, with commas.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, with commas.")] = None,
    track: Annotated[
        Track | None, typer.Option(help="Which question is asked.  [default: controlled]")
    ] = None,
    suite: Annotated[Path | None, typer.Option(help="A YAML file with all of this.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side in pixels.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Over all processes.")] = None,
    holdout: Annotated[
        float | None, typer.Option(help="Score this part of train, not the test split.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of the backbone: default, none, or a file.")
    ] = None,
    words: Annotated[
        Path | None, typer.Option(help="Label vectors: a GloVe text file or .npz.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the data sets are.  [default: $MLBENCH_DATA]")
    ] = None,
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    cache: Annotated[
        Path | None, typer.Option(help="[default: $MLBENCH_CACHE or ~/.cache/mlbench]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[
        Precision | None, typer.Option(help="[default: bf16 on CUDA, fp32 elsewhere]")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding threads a process.")] = None,
    keep_checkpoints: Annotated[bool, typer.Option(help="Keep the trained models.")] = True,
    retry_diverged: Annotated[bool, typer.Option(help="Run again what diverged.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only list what would run, and why.")] = False,
) -> None:
    """Run what is missing of a matrix, and print its board."""
    from mlbench.engine import distributed

    device = device_name(device)
    if gpus > 1 and not distributed.launched():
        code = distributed.launch(gpus, sys.argv[1:], device)
        if code == 130:
            errors.print(INTERRUPTED)
        raise typer.Exit(code)
    if ":" in device and distributed.launched():
        raise SuiteError(f"--device {device} names one device, for several processes; use cuda")
    weights_file, weights_id = _weights(weights)
    places = Places(
        data=data or data_folder(),
        weights=weights_file,
        words=words,
        results=results,
        cache=cache or cache_folder(),
        device=device,
        workers=thread_count() if workers is None else workers,
        checkpoints=keep_checkpoints,
    )
    settings = {"epochs": epochs, "image_size": image_size, "batch_size": batch_size}
    flags: dict[str, Any] = {
        "plugins": _split(plugins),
        "datasets": _split(datasets),
        "backbones": _split(backbones),
        "losses": _split(losses),
        "seeds": _seeds(seeds),
        "track": track,
        "holdout": holdout,
        "precision": precision,
        "settings": {k: v for k, v in settings.items() if v is not None},
    }
    world = distributed.join(device)

    def plan() -> Plan:
        from mlbench.cli.plan import make_plan

        matrix = _matrix(flags, suite, device)
        if weights_file is not None and len(matrix.backbones) > 1:
            raise SuiteError("--weights FILE fits one backbone; name one in --backbones")
        return make_plan(matrix, places, (weights_id, _words(words)), retry_diverged)

    try:
        code = _all_of_it(world, plan, places, dry_run)
    except KeyboardInterrupt:
        if world.leads:
            errors.print(INTERRUPTED)
        raise typer.Exit(130) from None
    if distributed.launched():
        distributed.leave(code)
    raise typer.Exit(code)


def _all_of_it(world: World, plan: Callable[[], Plan], places: Places, dry_run: bool) -> int:
    """Plan, and carry the plan out unless it is only to be shown; the leader's exit code."""
    try:
        planned = world.ask_leader(plan)
    except MlbenchError as error:  # every process has been given it, so that all end together
        if world.size == 1:
            raise
        if world.leads:
            refuse(error)
        return 2
    if dry_run:
        if world.leads:
            planned.show()
        return 2 if planned.hopeless else 0
    # All processes wait for the leader's word: a launcher ends the others when one has ended.
    code: int = world.broadcast(_carry_out(planned, places, world))
    return code


def _matrix(flags: dict[str, Any], file: Path | None, device: str) -> Suite:
    """The suite file, if there is one, with the flags that were given laid on top."""
    from mlbench import suite as suites
    from mlbench.tracks import merge

    fields: dict[str, Any] = suites.read(file) if file else {}
    given = {name: value for name, value in flags.items() if value not in (None, (), {})}
    settings = fields.get("settings", {})
    if isinstance(settings, Mapping):
        given["settings"] = merge(settings, flags["settings"])
    given.setdefault("precision", fields.get("precision") or _precision(device))
    return suites.make({**fields, **given}, str(file or "the command line"))


def _carry_out(planned: Plan, places: Places, world: World) -> int:
    from mlbench.cli.progress import ending

    if world.leads:
        planned.complain()
        if planned.hopeless:
            return 2
        if planned.done and not planned.missing:
            console.print(f"Nothing is missing: {len(planned.done)} runs are in {places.results}.")
    outcomes = []
    if planned.missing:
        from mlbench.executors.local import execute

        command = shlex.join(["mlbench", *sys.argv[1:]])
        with _progress(world) as progress:
            outcomes = execute(planned.missing, places, world, progress, command)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if world.leads:
        for outcome in failed:
            errors.print(ending(outcome), style="red", markup=False)
        _board(planned, places)
    return 1 if failed or planned.refused or planned.diverged else 0


def _board(planned: Plan, places: Places) -> None:
    """Print the boards that this matrix is on, and write them all."""
    from mlbench.cli.leaderboard import show_boards

    specs = (*planned.missing, *planned.done)
    mine = {(spec.data, spec.track) for spec in specs}
    show_boards(places.results, lambda table: (table.data, table.track) in mine)


def _progress(world: World) -> Silent:
    from mlbench.cli.progress import Lines, Live, Silent

    if not world.leads:
        return Silent()
    return Live() if errors.is_terminal else Lines()


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _seeds(text: str | None) -> tuple[int, ...]:
    for part in _split(text):
        if not part.isdecimal():
            raise SuiteError(f"--seeds {text}: {part!r} is no whole number; write 0,1,2")
    return tuple(map(int, _split(text)))


def _precision(device: str) -> Precision:
    return "bf16" if device.startswith("cuda") else "fp32"


def _weights(text: str | None) -> tuple[Path | None, str | None]:
    if text is None or text in ("default", "none"):
        return None, text
    return Path(text), _sha256(Path(text), "--weights", "default, none, or an existing file")


def _words(file: Path | None) -> str:
    if file is None:
        return "cooccurrence"
    return _sha256(file, "--words", "a GloVe text file or an .npz of names and vectors")


def _sha256(file: Path, flag: str, remedy: str) -> str:
    try:
        with file.open("rb") as opened:
            return "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    except OSError as error:
        raise WeightsError(
            f"{flag} {file} cannot be read ({error.strerror}); give {remedy}"
        ) from error
