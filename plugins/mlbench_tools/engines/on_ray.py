"""Carries out runs on a Ray cluster: a task a run, with its processors and devices.

Ray places the tasks, and restarts a task whose node is lost. A run on several nodes is a placement
group, and torch's launcher on each node.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from mlbench.engine.signals import EXIT_INTERRUPTED
from mlbench.executors import Job, MatrixProgress, Options, Outcome
from mlbench.files import atomic_write
from mlbench.text import first_error
from mlbench.types import SuiteError, Value
from mlbench_tools.engines.remote import (
    Follower,
    await_former,
    carry_out_here,
    outcome_without_answer,
)

REFRESH, GRACE = 1.0, 10.0
"""Seconds between two looks at the tasks, and seconds that interrupted runs have to end."""


class RayOptions(Value):
    """Options of ``--executor ray``.

    Attributes:
        address: address of the cluster; None finds one on this machine, or starts a temporary one.
        cpus: processors of each process of a run.
        nodes: number of a run's nodes, which share its processes equally.
        retries: how often a run is restarted after its node is lost.
    """

    address: str | None = None
    cpus: PositiveFloat = 1.0
    nodes: PositiveInt = 1
    retries: NonNegativeInt = 3


def execute(jobs: Sequence[Job], options: Options, progress: MatrixProgress) -> list[Outcome]:
    """Carry out jobs (see ``mlbench.executors.Executor``)."""
    known = ", ".join(RayOptions.model_fields)
    try:
        chosen = RayOptions.model_validate(options.more)
    except ValidationError as error:
        raise SuiteError(f"executor_options: {first_error(error)}; Ray's are {known}") from error
    if jobs[0].spec.processes % chosen.nodes:
        what = f"{jobs[0].spec.processes} processes on {chosen.nodes} nodes"
        raise SuiteError(f"executor_options: {what} cannot be shared out; give a multiple")
    try:
        import ray
    except ImportError as error:
        raise SuiteError("--executor ray needs Ray: pip install 'mlbench-mlic[ray]'") from error
    env = {k: v for k, v in os.environ.items() if k.startswith(("MLBENCH_", "OMP_"))}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(chosen.address, log_to_driver=False, runtime_env={"env_vars": env})
    except (ConnectionError, ValueError) as error:
        message = f"executor_options: no Ray cluster answers at {chosen.address} ({error})"
        raise SuiteError(message) from error
    signal.signal(signal.SIGTERM, before)  # Ray's handler ends this process
    try:
        return _follow(ray, jobs, chosen, Follower(jobs, progress))
    finally:
        ray.shutdown()


def _follow(
    ray: Any, jobs: Sequence[Job], options: RayOptions, follower: Follower
) -> list[Outcome]:
    outcomes = [Outcome(job.spec, job.log) for job in jobs]
    pending = {_submit(ray, job, options): number for number, job in enumerate(jobs)}
    try:
        while pending:
            done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=REFRESH)
            for task in done:
                number = pending.pop(task)
                outcomes[number] = _outcome(ray, task, jobs[number])
                follower.end(number, outcomes[number])
            follower.look()
    except KeyboardInterrupt:
        for task in pending:
            ray.cancel(task)
        if pending:
            ray.wait(list(pending), num_returns=len(pending), timeout=GRACE)
        raise
    return outcomes


def _outcome(ray: Any, task: Any, job: Job) -> Outcome:
    try:
        return ray.get(task)  # type: ignore[no-any-return]
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        return outcome_without_answer(job, f"Ray gave up: {type(error).__name__}: {reason}")


def _submit(ray: Any, job: Job, options: RayOptions) -> Any:
    """Submit the task of a run; return its reference."""
    retries = {"max_retries": options.retries, "name": job.spec.title}
    if options.nodes > 1:
        task = ray.remote(_run_on_nodes).options(num_cpus=0, retry_exceptions=True, **retries)
        return task.remote(Path.cwd(), job, options)
    task = ray.remote(max_calls=0)(_run_on_one)  # the run's processes hold the devices
    return task.options(**_resources(job, options), **retries).remote(Path.cwd(), job)


def _run_on_one(folder: Path, job: Job) -> Outcome:
    with _worker(folder):
        return carry_out_here(job)


@contextmanager
def _worker(folder: Path) -> Iterator[None]:
    """Work in the launcher's folder, if this node has it, as paths may be relative to it.

    At SIGTERM, before a node goes away, the block is interrupted and this process ends: the run has
    saved its state, and Ray restarts the task elsewhere.
    """
    asked = []

    def stop(*_: object) -> NoReturn:
        asked.append(True)
        raise KeyboardInterrupt

    with suppress(OSError):
        os.chdir(folder)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        if asked:
            os._exit(EXIT_INTERRUPTED)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _resources(job: Job, options: RayOptions) -> dict[str, float]:
    """The CPUs and GPUs that a run takes on each of its nodes."""
    processes = job.spec.processes // options.nodes
    devices = processes if job.places.device.startswith("cuda") else 0
    return {"num_cpus": options.cpus * processes, "num_gpus": devices}


# --------------------------------------------------------------------------- a run on several nodes
def _run_on_nodes(folder: Path, job: Job, options: RayOptions) -> Outcome:
    """Place the parts of a run, each on its own node; Ray repeats the run if a node is lost."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    with suppress(OSError):
        os.chdir(folder)
    await_former(job)
    with atomic_write(job.folder / "job.json") as file:
        file.write_text(job.model_dump_json(), encoding="utf-8")
    need = _resources(job, options)
    bundle = {"CPU": need["num_cpus"], "GPU": need["num_gpus"]}
    group = placement_group([bundle] * options.nodes, strategy="STRICT_SPREAD")

    def on(node: int, function: Any, *args: Any) -> Any:
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
        task = ray.remote(function).options(**need, max_retries=0, scheduling_strategy=place)
        return task.remote(*args)

    try:
        ray.get(group.ready())
        endpoint = ray.get(on(0, _free_endpoint))
        given = folder, job, options.nodes, endpoint
        code = max(ray.get([on(i, _run_part, *given, i == 0) for i in range(options.nodes)]))
    finally:
        remove_placement_group(group)
    if code == EXIT_INTERRUPTED:
        return Outcome(job.spec, job.log)
    return outcome_without_answer(job, f"the processes of the run ended with code {code}")


def _free_endpoint() -> str:
    """An unused address of this node, as host:port."""
    import ray

    host = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


def _run_part(folder: Path, job: Job, nodes: int, endpoint: str, hosts: bool) -> int:
    """Run this node's processes of a run, which join other nodes'; return their exit code."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}"),
        *(f"--nproc-per-node={job.spec.processes // nodes}", "--rdzv-backend=c10d"),
        *(f"--rdzv-endpoint={endpoint}", f"--rdzv-conf=is_host={int(hosts)}"),
        *(f"--rdzv-id={job.token}", "--max-restarts=0"),
        *("-m", "mlbench_tools.engines.remote", str(job.folder / "job.json")),
    ]
    with _worker(folder):
        with job.log.open("ab") as log:
            started = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            return started.wait()
        except KeyboardInterrupt:
            started.terminate()
            started.wait()
            raise
