"""``mlbench run``: train, evaluate, measure and rank every combination of a matrix."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mlbench.cli import run_flags as flag
from mlbench.cli.console import cache_folder, console, data_folder, errors, refuse
from mlbench.cli.device import device_name, thread_count
from mlbench.cli.options import named_values, with_dataset_options
from mlbench.files import sha256
from mlbench.types import (
    MlbenchError,
    Places,
    Precision,
    SuiteError,
    WeightsError,
)

if TYPE_CHECKING:
    from mlbench.cli.plan import Plan
    from mlbench.cli.progress import Silent
    from mlbench.engine.distributed import World
    from mlbench.suite import Suite


INTERRUPTED = "interrupted: finished runs are kept, the same command goes on with the rest"


def run(
    plugins: flag.Plugins = None,
    datasets: flag.Datasets = None,
    backbones: flag.Backbones = None,
    losses: flag.Losses = None,
    seeds: flag.Seeds = None,
    track: flag.TrackFlag = None,
    suite: flag.Suite = None,
    repeat: flag.Repeat = None,
    epochs: flag.Epochs = None,
    image_size: flag.ImageSize = None,
    batch_size: flag.BatchSize = None,
    holdout: flag.Holdout = None,
    allow_missing: flag.AllowMissing = False,
    selection: flag.SelectionFlag = None,
    weights: flag.Weights = None,
    words: flag.Words = None,
    graph: flag.Graph = None,
    label_noise: flag.LabelNoise = None,
    dataset_option: flag.DatasetOption = None,
    data: flag.Data = None,
    results: flag.Results = Path("results"),
    cache: flag.Cache = None,
    device: flag.Device = "auto",
    precision: flag.PrecisionFlag = None,
    gpus: flag.Gpus = 1,
    workers: flag.Workers = None,
    keep_checkpoints: flag.KeepCheckpoints = True,
    retry_diverged: flag.RetryDiverged = False,
    dry_run: flag.DryRun = False,
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
    words_file, words_ids = _words(words)
    places = Places(
        data=data or data_folder(),
        weights=weights_file,
        words=words_file,
        results=results,
        cache=cache or cache_folder(),
        device=device,
        workers=thread_count() if workers is None else workers,
        checkpoints=keep_checkpoints,
    )
    settings = {
        "epochs": epochs,
        "image_size": image_size,
        "batch_size": batch_size,
        "selection": selection,
    }
    flags: dict[str, Any] = {
        "plugins": _split(plugins),
        "datasets": _split(datasets),
        "backbones": _split(backbones),
        "losses": _split(losses),
        "seeds": _seeds(seeds),
        "track": track,
        "holdout": holdout,
        "allow_missing": allow_missing or None,
        "graph": _split(graph),
        "words": words_ids,
        "label_noise": named_values(label_noise or (), "--label-noise"),
        "precision": precision,
        "settings": {k: v for k, v in settings.items() if v is not None},
    }
    if repeat is not None:
        _refuse_beside_repeat({**flags, "suite": suite, "dataset_option": dataset_option})
    world = distributed.join(device)

    def plan() -> Plan:
        from mlbench.cli.plan import make_plan
        from mlbench.cli.repeat import plan_repeat

        if repeat is not None:
            return plan_repeat(repeat, (weights_id, words_ids), places, world, retry_diverged)
        matrix = _matrix(flags, suite, device)
        matrix = with_dataset_options(
            matrix, named_values(dataset_option or (), "--dataset-option")
        )
        if weights_file is not None and len(matrix.backbones) > 1:
            raise SuiteError("--weights FILE fits one backbone; name one in --backbones")
        return make_plan(matrix, places, weights_id, retry_diverged)

    try:
        code = _all_of_it(world, plan, places, dry_run)
    except KeyboardInterrupt:
        if world.leads:
            errors.print(INTERRUPTED)
        raise typer.Exit(130) from None
    if distributed.launched():
        distributed.leave(code)
    raise typer.Exit(code)


def _refuse_beside_repeat(flags: Mapping[str, Any]) -> None:
    """A run that is repeated has its settings; only files, machine and store are to be said."""
    given = {**flags, **flags["settings"], "settings": None, "words": None}
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise SuiteError(
            f"--repeat takes all that changes a run's numbers from its file; leave out "
            f"{', '.join(names)}"
        )


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
    flags = {name: value for name, value in flags.items() if value not in (None, (), {})}
    given = dict(flags)
    for name in ("settings", "label_noise"):
        if isinstance(fields.get(name, {}), Mapping):
            given[name] = merge(fields.get(name, {}), flags.get(name, {}))
    given.setdefault("precision", fields.get("precision") or _precision(device))
    return suites.make({**fields, **given}, str(file or suites.FLAGS), flags)


def _carry_out(planned: Plan, places: Places, world: World) -> int:
    from mlbench.cli.progress import ending
    from mlbench.text import count

    if world.leads:
        planned.complain()
        if planned.hopeless:
            return 2
        if planned.done and not planned.missing:
            runs, are = count(len(planned.done), "run"), "is" if len(planned.done) == 1 else "are"
            console.print(f"Nothing is missing: {runs} {are} in {places.results}.")
    outcomes = []
    if planned.missing:
        from mlbench.executors.local import execute

        command = shlex.join(["mlbench", *sys.argv[1:]])
        with _progress(world, planned) as progress:
            outcomes = execute(planned.missing, places, world, progress, command)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if world.leads:
        for outcome in failed if len(outcomes) > 1 else ():  # each was told when it ended
            errors.print(ending(outcome), style="red", markup=False)
        _board(planned, places)
    return 1 if failed or planned.refused or planned.diverged else 0


def _board(planned: Plan, places: Places) -> None:
    """Print the rows of this matrix with their ranks on the whole boards, and write all boards."""
    from mlbench.cli import boards

    specs = (*planned.missing, *planned.done)
    mine = {(spec.data, spec.track) for spec in specs}
    asked = {spec.run_id for spec in specs}
    found = boards.read(places.results)
    shown = [
        table for table in found.tables if table.tier == "own" and (table.data, table.track) in mine
    ]
    boards.show(shown, asked)
    boards.write(found)


def _progress(world: World, planned: Plan) -> Silent:
    from mlbench.cli.progress import Lines, Live, Silent

    if not world.leads:
        return Silent()
    return Live(planned.variants) if errors.is_terminal else Lines(planned.variants)


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
    return Path(text), _identity(Path(text), "--weights", "default, none, or an existing file")


def _words(text: str | None) -> tuple[Path | None, tuple[str, ...]]:
    """The file of vectors, if one is named, and the identities of all that are."""
    names = _split(text)
    files = [name for name in names if name not in ("cooccurrence", "random")]
    if len(files) > 1:
        raise SuiteError(f"--words {text} names {len(files)} files; a matrix takes one at most")
    remedy = "a GloVe text file or an .npz of names and vectors, cooccurrence, or random"
    ids = {name: _identity(Path(name), "--words", remedy) for name in files}
    return Path(files[0]) if files else None, tuple(ids.get(name, name) for name in names)


def _identity(file: Path, flag: str, remedy: str) -> str:
    try:
        return f"sha256:{sha256(file)[:16]}"
    except OSError as error:
        raise WeightsError(
            f"{flag} {file} cannot be read ({error.strerror}); give {remedy}"
        ) from error
