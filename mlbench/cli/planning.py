"""Plan a matrix in a separate process, so that no plugin can end the command's process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlbench.cli.console import cache_folder, data_folder, device_name, errors, thread_count
from mlbench.executors import STALL, Options, suspects
from mlbench.executors.forking import ChildDied, Tell, call, load_models
from mlbench.numbers import changed_packages, outdated
from mlbench.suite import COMMAND_LINE, Suite, make_suite
from mlbench.suite_file import SEEDS, apply_overrides, read_suite
from mlbench.text import count
from mlbench.tracks import merge
from mlbench.types import DataError, Places, Plan, PluginError, RunSpec, SuiteError

if TYPE_CHECKING:
    from mlbench.plan import Veto


class Prepared(NamedTuple):
    """A matrix that is planned, and where it runs."""

    suite: Suite
    plan: Plan
    places: Places
    options: Options


# ------------------------------------------------------------------------- in a process of its own
def read_matrix(
    flags: Mapping[str, Any],
    texts: Iterable[str],
    file: Path | None,
    defaults: Mapping[str, Any] | None = None,
) -> Suite:
    """Read a suite file, if there is one, and apply the command line to it.

    ``defaults`` fill fields that neither sets; for a suite file, they are ``SEEDS`` seeds.

    Raises:
        SuiteError, PluginError: as ``mlbench.suite.make_suite``.
    """
    given = apply_overrides(flags, texts)
    usual = defaults or ({"seeds": SEEDS} if file else {})
    fields = {**usual, **(merge(read_suite(file), given) if file else given)}
    return make_suite(usual_precision(fields) | fields, str(file or COMMAND_LINE), given)


def usual_precision(fields: Mapping[str, Any]) -> dict[str, str]:
    """The default precision for these fields: bf16 on CUDA devices that support it."""
    import torch

    from mlbench.engine.model import unsupported

    executor = str(fields.get("executor", "local"))
    device = torch.device(_device(str(fields.get("device", "auto")), executor))
    half = device.type == "cuda" and unsupported("bf16", device) is None
    return {"precision": "bf16" if half else "fp32"}


def plan_matrix(
    flags: Mapping[str, Any], texts: Iterable[str], file: Path | None, veto: Veto
) -> Prepared:
    """Plan the matrix of a command line and a suite file."""
    return plan_suite(read_matrix(flags, texts, file), veto)


def plan_suite(suite: Suite, veto: Veto) -> Prepared:
    """Plan a matrix; files of weights and vectors are identified by their digests."""
    from mlbench.plan import make_plan

    named, places, options = _locate(suite)
    return Prepared(suite, make_plan(named, places, veto), places, options)


def plan_repetition(file: Path, suite: Suite, veto: Veto) -> Prepared:
    """Plan the run of a run file, record or pack; the suite only says where to run it.

    Raises:
        SuiteError: the file describes no run that can be repeated.
        PluginError: a plugin is not installed, or is of another distribution or version.
        WeightsError: the weights or label vectors are not those of the run.
        DataError: the data differ from those of the run.
    """
    import torch

    from mlbench import run_file
    from mlbench.data.open import open_run
    from mlbench.engine.distributed import World
    from mlbench.plan import assert_same_files, compare_with_store
    from mlbench.provenance import commit, environment

    run = run_file.read_run(file)
    named, places, options = _locate(suite)
    spec, processes = run.spec, World(size=suite.processes)
    if changed := changed_packages((run.environment or {}).get("plugins")):
        remedy = "or remove the line from the file to run with what is installed"
        raise PluginError(f"{file}: the run used {changed[0]}, {remedy}")
    current = environment(torch.device(places.device), processes, spec)
    assert_same_files(spec, named)
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
    planned = compare_with_store([spec], lambda _: splits, places, again, veto)
    if run.run_id and (reason := outdated(run.numbers)):
        errors.print(f"the run's numbers may differ: {reason}")
    if differing := run_file.environment_differences(run, current, commit()):
        errors.print(differing)
    if planned.done:
        there = f"run {spec.run_id} is already in {places.results}"
        errors.print(f"{there}; to repeat it, name another folder with --results")
    return Prepared(suite, planned, places, options)


def _locate(suite: Suite) -> tuple[Suite, Places, Options]:
    """The suite with digests in place of files, the places of its runs, and their devices.

    Raises:
        SuiteError: this machine does not have these devices.
    """
    from mlbench.plan import identify_files

    named, files = identify_files(suite)
    places = places_of(suite, files)
    devices = _devices(suite, places.device)
    if suite.processes > 1 and not devices:
        errors.print(f"each run is trained by {suite.processes} processes on the CPU")
    options = Options(
        jobs=suite.jobs, devices=devices, share_data=suite.share_data, more=suite.executor_options
    )
    return named, places, options


def _device(name: str, executor: str) -> str:
    """The device that a flag names; other machines may have one that this one lacks.

    Raises:
        SuiteError: ``auto`` would plan this machine's CPU for other machines.
    """
    device = device_name(name, here=executor == "local")
    if name == "auto" and device == "cpu" and executor != "local":
        raise SuiteError(
            f"--executor {executor} carries out runs elsewhere, and --device auto would take the "
            "CPU, as torch finds no CUDA device here; name --device cuda or --device cpu"
        )
    return device


def _devices(suite: Suite, device: str) -> tuple[int, ...]:
    """The numbers of the devices to fill; none for the CPU and for a device that has a number."""
    import torch

    if device != "cuda":
        if suite.devices or (suite.processes > 1 and device != "cpu"):
            given = "--devices" if suite.devices else "--processes"
            raise SuiteError(
                f"{given} needs --device cuda, not {device}; leave out {given}, or give that"
            )
        return ()
    there, asked = torch.cuda.device_count(), suite.devices or tuple(range(suite.processes))
    if suite.executor == "local" and max(asked) >= there:
        raise SuiteError(
            f"--devices {','.join(map(str, asked))}, but this machine has {count(there, 'device')}"
            "; or use --device cpu"
        )
    return asked


def call_planner(
    function: Callable[..., Prepared], args: tuple[Any, ...], deadly: Mapping[str, str], tell: Tell
) -> Prepared:
    """Call a planning function; report every run whose plugins it constructs.

    Args:
        function: takes ``args`` and a ``Veto``.
        args: arguments of the function.
        deadly: run id -> why its plugins must not be constructed again.
        tell: sends a message to the process that waits for the plan.
    """

    def veto(spec: RunSpec) -> str | None:
        tell("constructing", spec)
        return deadly.get(spec.run_id)

    return function(*args, veto)


# -------------------------------------------------------------------- in the process that asks
def plan_safely(function: Callable[..., Prepared], *args: Any, stall: float = STALL) -> Prepared:
    """Call a planning function; refuse runs whose plugins end the process.

    A killed process is tried once more, as the signal may have come from outside. ``args`` are the
    function's, without its ``Veto``; ``stall`` is the seconds that a run's plugins may take.

    Raises:
        ChildDied: the process ended while it constructed nothing.
        MlbenchError: what the function raised.
    """
    deadly: dict[str, str] = {}
    killed: set[str] = set()

    def heard(kind: str, *_: Any) -> None:
        if kind == "constructing":  # the runs will need them soon
            load_models(os.getpid())

    while True:
        try:
            return call(  # type: ignore[no-any-return]
                "mlbench.cli.planning:call_planner",
                *(function, args, deadly),
                stall=stall,
                relay=sys.stderr.write,
                heard=heard,
            )
        except ChildDied as error:
            kind, spec = (*error.last, None, None)[:2]
            run_id = spec.run_id if kind == "constructing" else ""
            if error.death.kind == "killed" and run_id not in killed:
                killed.add(run_id)
                continue
            if not run_id or run_id in deadly:
                raise
            deadly[run_id] = f"constructed, it ended the process: {error.death.reason}; " + (
                suspects(spec) or "this is a fault of mlbench"
            )


def places_of(suite: Suite, files: Mapping[str, Path]) -> Places:
    """Where the runs of a suite find and leave files; ``files`` come from ``identify_files``."""
    workers = max(thread_count() // suite.jobs, 1) if suite.executor == "local" else 0
    same = Places.model_fields.keys() & Suite.model_fields.keys() - {"weights", "words", "init"}
    here = {
        "data": suite.data or data_folder(),
        "cache": suite.cache or cache_folder(),
        "device": _device(suite.device, suite.executor),
        "workers": workers if suite.workers is None else suite.workers,
    }
    return Places(**{name: getattr(suite, name) for name in same} | here | dict(files))
