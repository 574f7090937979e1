"""No run touches another, or the process that started it, whatever its plugins do."""

import errno
import itertools
import multiprocessing
import os
import re
import socket
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mlbench import plan
from mlbench.cli import matrix
from mlbench.executors import (
    Failure,
    Options,
    Outcome,
    fail,
    fork_server,
    forking,
    local,
    make_jobs,
)
from mlbench.executors.forking import (
    Death,
    call,
    describe_end,
    device_groups,
    device_names,
    showing,
)
from mlbench.executors.local import _Attempt
from mlbench.files import sweep
from mlbench.leases import find_holder
from mlbench.store import Store
from mlbench.suite import Suite, make_suite
from mlbench.types import Places, SuiteError
from tests.cli.manifests import TINY
from tests.engine.tiny import Quiet
from tests.store.made import kept, made_record

HEADS = '''
import os, resource, signal, sys, threading, time
import numpy as np, torch
from torch import nn
from mlbench.types import HeadOutput

class Head(nn.Module):
    """The mean of the deepest map, and a fault when it is first trained."""

    def __init__(self, spec, labels):
        super().__init__()
        self.classifier = nn.Linear(spec[-1].channels, len(labels))
        self.rank = int(os.environ.get("RANK", 0))

    def forward(self, features):
        if self.training and features[-1].device.type == "cpu":
            self.fault()
        return HeadOutput(self.classifier(features[-1].mean((2, 3))))

    def fault(self):
        pass

class Careless(Head):
    """Changes what other code of its process relies on."""

    def fault(self):
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        np.random.seed(0)
        os.environ["TORCH_HOME"] = "elsewhere"
        threading.Thread(target=time.sleep, args=(1000,)).start()

class Greedy(Head):
    """Takes more memory than there is; as machines are shared, than its process may have."""

    def fault(self):
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, size + 2**28))
        torch.zeros(2**30)

class Unborn(Head):
    def __init__(self, spec, labels):
        os.abort()

class Shot(Head):
    """Is killed in planning as many times as a file allows, as if from outside."""

    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        if os.path.getsize(os.environ["FAULT_KILLS"]):
            os.truncate(os.environ["FAULT_KILLS"], os.path.getsize(os.environ["FAULT_KILLS"]) - 1)
            os.kill(os.getpid(), signal.SIGKILL)

class Cautious(Head):
    """Takes whatever is raised while it is made for a fault, and is told to end once meanwhile."""

    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        if "RANK" in os.environ and os.path.getsize(os.environ["FAULT_KILLS"]):
            os.truncate(os.environ["FAULT_KILLS"], 0)
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            except Exception as error:
                raise ValueError("it cannot be made") from error
'''
ENDS = {
    "Leaves": "sys.exit(0)",
    "Leaves7": "os._exit(7)",
    "Exits7": "sys.exit(7)",
    "Stops": "os.kill(os.getpid(), signal.SIGTERM)",  # unknown to the launcher, at every try
    "Aborts": "os.abort()",
    "Killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "Hangs": "time.sleep(1000)",
}
ENDS_OF_RANK_1 = {
    "SecondKilled": ENDS["Killed"],
    "SecondStarves": "raise torch.OutOfMemoryError('Tried to allocate 2.00 GiB')",
    "SecondFails": "raise ArithmeticError('of rank 1')",
    "SecondFreezes": "os.kill(os.getpid(), signal.SIGSTOP)",
}
for ranks, ends in (((0, 1), ENDS), ((1,), ENDS_OF_RANK_1)):
    for name, end in ends.items():
        HEADS += f"""
class {name}(Head):
    def fault(self):
        if self.rank in {ranks}:
            {end}
"""
CLASSES = re.findall(r"class (\w+)\(Head\)", HEADS)
NAMES_OF = {"plain": "Head"} | {re.sub(r"\B[A-Z]", r"_\g<0>", c).lower(): c for c in CLASSES}
LOSSES = '''
from mlbench_plugins.losses.bce import BCE

class Starves(BCE):
    """Has room for a quarter of a batch of eight, on the last rank."""

    def forward(self, logits, targets):
        rank, size = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
        if rank == size - 1 and len(logits) * size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB.")
        return super().forward(logits, targets)

class Crowded(BCE):
    """Has no room in the first run that gets here, which has a neighbour."""

    def forward(self, logits, targets):
        try:
            open(os.environ["FAULT_MARK"], "x").close()
        except FileExistsError:
            return super().forward(logits, targets)
        raise torch.OutOfMemoryError("CUDA out of memory.")
'''
FEW = "dataset_options={train_images: 24, test_images: 31, size: 32}"


@pytest.fixture
def run(cli, install, tmp_path):
    """Run heads and losses of another distribution; returns how it ended."""
    entries = ["[mlbench.heads]", *(f"{name} = faulty:{head}" for name, head in NAMES_OF.items())]
    entries += ["[mlbench.losses]", "starves = faulty:Starves", "crowded = faulty:Crowded"]
    install("faulty", HEADS + LOSSES, "\n".join(entries))

    def call(*heads, **options):
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        few = ("--set", FEW, "--set", "batch_size=8")
        return cli("run", *TINY, "--plugins", ",".join(heads), *few, *flags)

    return call


def failures(folder):
    """What `failure.json` says, by method."""
    files = (folder / "results" / "runs").glob("*/failure.json")
    found = [Failure.model_validate_json(file.read_bytes()) for file in files]
    return {failure.title.split()[0]: failure for failure in found}


def test_whatever_a_plugin_does_the_rest_goes_on(run, tmp_path, store):
    run("plain", results=tmp_path / "alone").ok()  # first, as models are loaded then
    ended = run(
        *("leaves", "leaves7", "aborts", "killed", "hangs", "careless", "greedy", "unborn"),
        *("stops", "plain"),
        stall="5s",
    )
    assert ended.code == 1, ended.err
    done = {record.spec.method: record for record in store.records()}
    assert set(done) == {"careless", "plain"}
    found = failures(tmp_path)
    assert {name: failure.status for name, failure in found.items()} == {
        "leaves": "exit",
        "leaves7": "exit",
        "aborts": "crash",
        "killed": "killed",
        "stops": "killed",
        "hangs": "hung",
        "greedy": "error",
    }
    assert "SystemExit: 0" in found["leaves"].reason and "code 7" in found["leaves7"].reason
    assert "SIGABRT" in found["aborts"].reason and "memory ran out" in found["killed"].reason
    assert "allocate" in found["greedy"].reason and "3 times" in found["stops"].reason
    for name in ("leaves", "aborts", "hangs"):
        assert "faulty.py" in "\n".join(found[name].log), "the log says where"
    assert "--stall" in found["hangs"].remedy and "mlbench check" in found["aborts"].remedy
    assert "refused: unborn" in ended.err and "SIGABRT" in ended.err
    (undisturbed,) = Store(tmp_path / "alone").records()
    assert undisturbed.average_precision == done["plain"].average_precision


def test_a_run_that_succeeds_at_last_has_no_failure(run, tmp_path):
    assert run("aborts").code == 1 and failures(tmp_path)
    (tmp_path / "site-faulty" / "faulty.py").write_text(HEADS.replace("os.abort()", "pass"))
    assert run("aborts").code == 0 and not failures(tmp_path)


def test_the_first_rank_that_fails_is_the_one_that_is_named(run, tmp_path, store):
    assert run("second_fails", "plain", processes=2).code == 1
    found = failures(tmp_path)["second_fails"]
    assert found.reason.startswith("ArithmeticError: of rank 1 (")
    assert "rank 1" in "\n".join(found.log)
    (record,) = store.records()
    assert record.spec.method == "plain" and record.environment["processes"] == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_short_of_memory_is_tried_again_in_smaller_parts(run, tmp_path, processes, store):
    options = {"processes": processes, "losses": "bce,starves", "set": "freeze_bn=true"}
    assert run("plain", **options).code == 0 and not failures(tmp_path)
    found = {one.spec.settings.loss: one for one in store.records()}
    starved, roomy = found["starves"], found["bce"]
    assert starved.spec.settings.grad_accumulation == 1
    assert starved.notes[0] == (
        f"out of memory on cpu: {8 // processes} images at 32 pixels need at least 512 MiB; "
        "trained with grad_accumulation 2 at the same batch size"
    )
    assert starved.epochs[-1].loss == pytest.approx(roomy.epochs[-1].loss, rel=1e-4)


def test_a_run_short_of_memory_beside_others_is_tried_again_alone(
    run, tmp_path, monkeypatch, store, caplog
):
    monkeypatch.setenv("FAULT_MARK", str(tmp_path / "mark"))
    run("plain", losses="crowded", seeds="0,1", jobs=2).ok()
    assert "failed beside others; it is repeated" in caplog.text
    assert len(store.records()) == 2 and not failures(tmp_path)
    assert not any("grad_accumulation" in str(record.notes) for record in store.records())


@pytest.mark.parametrize(
    ("head", "kills", "code"), [("shot", 1, 0), ("shot", 9, 2), ("cautious", 1, 0)]
)
def test_a_signal_while_a_model_is_made_is_no_fault_of_it(
    run, tmp_path, monkeypatch, head, kills, code
):
    """A plan that is killed once is made again."""
    (tmp_path / "kills").write_bytes(bytes(kills))
    monkeypatch.setenv("FAULT_KILLS", str(tmp_path / "kills"))
    ended = run(head)
    assert (ended.code, "memory ran out" in ended.err) == (code, code == 2), ended.err
    assert not failures(tmp_path)
    assert code or not (tmp_path / "kills").read_bytes()


@pytest.fixture
def job(tmp_path, cache):
    """A run that takes long."""
    chosen = {"backbone": "timm:test_resnet", "image_size": 32, "epochs": 500, "batch_size": 8}
    few = {"train_images": 24, "test_images": 31, "size": 32}
    fields = {"plugins": ["gap"], "dataset_options": few, "settings": chosen, "weights": "none"}
    places = Places(results=tmp_path / "results", cache=cache, workers=1)
    return make_jobs(plan.make_plan(make_suite(fields), places).missing, places, "")[0]


def watching(**heard):
    """The progress of a run, of which functions hear."""
    progress = Quiet()
    vars(progress).update(heard)
    return progress


def test_a_second_interruption_gives_the_run_back_at_once(job, monkeypatch):
    wait, begun, interruptions = local.wait, [], []

    def interrupted(*given, **more):
        if begun and len(interruptions) < 2:
            interruptions.append(None)
            raise KeyboardInterrupt
        return wait(*given, **more)

    monkeypatch.setattr(local, "wait", interrupted)
    shown = SimpleNamespace(begin=lambda *_: watching(epoch=begun.append), end=lambda outcome: None)
    with pytest.raises(KeyboardInterrupt):
        local.execute([job], Options(), shown)
    assert len(interruptions) == 2 and find_holder(job.folder) is None
    assert not job.failure_file.exists()


def test_a_run_that_is_killed_after_its_record_is_done(job, tmp_path):
    record = kept(Store(job.places.results), made_record(spec={"seed": 1}))
    job = job.model_copy(update={"spec": record.spec})
    killed = {0: (0.0, Death("killed", "killed by SIGKILL from outside"))}
    (outcome,) = _Attempt([(0, job)], 0, [], [], tmp_path / "meeting", 0.0, killed).close()
    assert outcome.record == record and not job.failure_file.exists()


def test_a_rank_that_was_asked_to_stop_is_no_failure_of_the_others(job, tmp_path):
    """The connection of the other breaks, whatever the run does then."""
    broken = fail(job, "error", "Connection closed by peer")
    job.failure_file.unlink()
    for when, failed in ((1.0, False), (3.0, True)):
        ends = {0: (2.0, broken), 1: (when, Outcome(job.spec, None))}
        (found,) = _Attempt([(0, job)], 0, [], [], tmp_path / "meeting", 0.0, ends).close()
        assert found.decided is failed is job.failure_file.exists()


def test_what_a_run_that_goes_on_for_days_needs_is_no_leftover(tmp_path):
    """Its processes meet again at its end, and another launcher may sweep before."""
    os.utime(tmp_path, (0, 0))
    child = SimpleNamespace(receive=lambda: [("count", 1, 2)], ended=False)
    job, shown = SimpleNamespace(stall=60), SimpleNamespace(count=lambda done, total: None)
    _Attempt([(0, job)], 0, [shown], [child], tmp_path, 0.0).listen()
    sweep([tmp_path])
    assert tmp_path.exists()


def test_runs_go_side_by_side_and_share_the_threads(run, tmp_path, monkeypatch, store):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run("plain", seeds="0,1,2", jobs=2).ok()
    records = store.records()
    assert len(records) == 3
    assert {r.environment["threads"] for r in records} == {max((os.cpu_count() or 1) // 2, 1)}
    run("plain", seeds="0", results=tmp_path / "alone").ok()
    (alone,) = Store(tmp_path / "alone").records()
    (same,) = [record for record in records if record.run_id == alone.run_id]
    assert alone.average_precision == same.average_precision


@pytest.mark.parametrize(("given", "threads"), [("2,1", 2), ("4", 4), ("", None), ("all", None)])
def test_the_outermost_number_of_threads_counts(given, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert matrix._threads(Suite()) == threads


def see_server(tell):
    """Runs in a child: the threads of its server, and whether CUDA was touched there."""
    return len(list(Path(f"/proc/{os.getppid()}/task").iterdir())), torch.cuda.is_initialized()


def test_the_server_has_one_thread_and_no_cuda_context():
    assert call(f"{__name__}:{see_server.__name__}", stall=60, relay=sys.stderr.write) == (1, False)


def nap(seconds, tell):
    """Runs in a child."""
    time.sleep(seconds)
    return "rested"


def serve_twice(descriptor, other):
    """A server whose second fork fails as at the limit of processes."""
    os.close(other)
    real, calls = os.fork, itertools.count()

    def fork():
        if next(calls) == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real()

    os.fork = fork
    fork_server.serve(descriptor)


def test_a_fork_that_fails_ends_its_own_child_alone(monkeypatch):
    ours, theirs = socket.socketpair()
    ends = theirs.fileno(), ours.fileno()
    server = multiprocessing.get_context("fork").Process(target=serve_twice, args=ends)
    server.start()
    theirs.close()
    monkeypatch.setattr(forking, "_server", lambda owner: ours)
    with Path(os.devnull).open("w") as output:
        where = f"{__name__}:{nap.__name__}"
        children = [forking.fork(where, (s,), output.fileno(), models=False) for s in (3, 0, 0)]
    assert [child.pid is None for child in children] == [False, True, False]
    assert children[1].ended and "no process could be started" in describe_end(None).reason
    messages = [[], [], []]
    while not all(child.ended for child in children):
        wait([one for child in children for one in child.waitables])
        for child, found in zip(children, messages, strict=True):
            found += child.receive()
    assert [child.status for child in children] == [0, None, 0]
    assert [found[-1][1] if found else None for found in messages] == ["rested", None, "rested"]
    ours.close()
    server.join(60)
    assert server.exitcode == 0


@pytest.fixture
def smi(monkeypatch, tmp_path):
    """Put commands into an nvidia-smi, which notes its calls in a file."""

    def write(*lines):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("\n".join(["#!/bin/sh", f"echo >> {calls}", *lines]))
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        return calls

    calls = tmp_path / "calls"
    return write


def beside(job, progress):
    """Carry out a job with another seed beside it on a GPU that only this process believes in."""
    other = job.model_copy(update={"spec": job.spec.model_copy(update={"seed": 1})})
    local.execute([job, other], Options(jobs=2, devices=(0,)), progress)


def test_a_second_run_on_a_gpu_begins_when_the_first_has_told_a_step(job, smi):
    """What others use is not taken for a run's need."""
    told = []

    def begin(number, *_):
        told.append(number)
        if number == 2:
            raise KeyboardInterrupt
        return watching(step=lambda *_: told.append("step"))

    smi("echo '0, GPU-0, 36000, 81000'")
    with pytest.raises(KeyboardInterrupt):
        beside(job, SimpleNamespace(begin=begin, end=lambda outcome: None))
    assert told[:2] == [1, "step"] and 2 in told


def test_the_memory_of_a_gpu_is_asked_for_when_a_run_begins_steps_or_ends(job, smi, monkeypatch):
    monkeypatch.setattr(local, "PAUSE", 1e9)
    settings = job.spec.settings.model_copy(update={"epochs": 6})
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"settings": settings})})
    free = "[ $(wc -l < %s) = 3 ] && free=30000 || free=80000"
    calls = smi(free % (job.folder.parents[2] / "calls"), "echo 0, GPU-0, $free, 81000")
    begun, told = [], []

    def begin(number, *_):
        begun.append(number)
        return watching(epoch=lambda log: told.append(len(begun)))

    beside(job, SimpleNamespace(begin=begin, end=lambda outcome: None))
    assert told == [1] * 6 + [2] * 6, "no room beside the first"
    assert len(calls.read_text().splitlines()) == 4, "groups, begin, step, begin"


def test_a_run_that_must_be_alone_has_no_neighbour(job):
    alone = job.model_copy(update={"alone": True})
    for first, second in ((job, alone), (alone, job), (job, job)):
        matrix = local._Matrix([second], Options(jobs=2), None)
        assert matrix._free_group() == 0
        matrix.running = [_Attempt([(0, first)], 0, [], [], None, 0.0)]
        assert matrix._free_group() == (None if first.alone or second.alone else 0)


def test_devices_are_shared_out_by_what_is_free_on_them(monkeypatch, smi):
    lines = [f"{i}, GPU-{i}, {free}, 81000" for i, free in enumerate([79000, 900, 40000, 80000])]
    smi(*(f"echo '{line}'" for line in lines))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_groups((0, 1, 2, 3), 1) == [("0",), ("2",), ("3",)]
    assert device_groups((0, 1, 2, 3), 2) == [("0", "2")]
    with pytest.raises(SuiteError, match="device 1 has only 900 of 81,000 MiB free"):
        device_groups((1,), 1)
    assert showing(("2",)) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-3,GPU-1")
    assert device_groups((0, 1), 1) == [("GPU-3",)]
    assert device_groups((), 2) == [()], "the CPU"
    assert showing(device_names((1,))) == {"CUDA_VISIBLE_DEVICES": "GPU-1"}, "in the user's order"
    assert showing(device_names(())) == {}


def descendants(pid):
    """The processes that descend from one."""
    found, parents = set(), {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    layer = {pid}
    while layer := {child for child, parent in parents.items() if parent in layer} - found:
        found |= layer
    return found


@pytest.mark.slow
def test_a_killed_parent_leaves_no_process(run, begin, tmp_path):
    assert run("plain", results=tmp_path / "first").code == 0  # draws the images
    flags = ("--plugins", "plain", "--epochs", 2000, "--processes", 2, "--set", FEW)
    with begin("run", *TINY, *flags) as going:
        try:
            files = (tmp_path / "results" / "runs").glob
            until(lambda: any("engine.train" in log.read_text() for log in files("*/log.txt")), 300)
            started = descendants(going.pid)
            assert len(started) == 3, "a server and two ranks"
        finally:
            going.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
