"""Runs on Ray and as jobs of Slurm; the slow tests start clusters here, that of Slurm as root."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mlbench.cli.planning import places_of, usual_precision
from mlbench.executors import Options, make_jobs
from mlbench.executors.run_status import overview
from mlbench.store import Store
from mlbench.suite import Suite
from mlbench.types import Places, SuiteError
from mlbench_tools.engines import on_ray, on_slurm
from mlbench_tools.engines.remote import with_workers
from tests.engine import tiny
from tests.executors.test_local import descendants, until
from tests.store.made import made_record
from tests.tools.engines.conftest import start


@pytest.mark.parametrize(
    ("engine", "options", "processes", "said"),
    [
        (on_ray, {}, 1, r"pip install 'mlbench-mlic\[ray\]'"),
        (on_ray, {"adress": "auto"}, 1, "adress.*Ray's are address, cpus, nodes, retries"),
        (on_ray, {"nodes": 2}, 3, "3 processes on 2 nodes cannot be shared out"),
        (on_slurm, {}, 1, r"pip install 'mlbench-mlic\[slurm\]'"),
    ],
)
def test_what_cannot_start_says_how_it_can(tmp_path, monkeypatch, engine, options, processes, said):
    for library in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, library, None)
    places = Places(results=tmp_path, cache=tmp_path)
    jobs = make_jobs([made_record("gap", spec={"processes": processes}).spec], places, "")
    with pytest.raises(SuiteError, match=said):
        engine.execute(jobs, Options(more=options), tiny.Quiet())


@pytest.fixture
def cluster(monkeypatch, quick, gate):
    """A head and two nodes of one processor each."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mlbench-mlic[ray]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default, which a busy machine starves
    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    found = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    yield found, [found.add_node(**small) for _ in range(2)]
    found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_nodes_finishes_all_runs_and_each_once(cluster, gate, suite, tmp_path):
    found, nodes = cluster
    file, results = suite(plugins=["waits"], seeds=[0, 1, 2, 3, 4, 5]), tmp_path / "results"
    results.mkdir()  # the status of a folder that is not there is refused
    launcher = start(file, results, "ray", address=found.address)

    def three_train():
        assert launcher.poll() is None
        there = [one.status for one in overview(results).values() if one.state == "running"]
        return sum(one is not None and one.phase == "training" for one in there) == 3

    until(three_train, 900)
    (raylet,) = nodes[1].all_processes["raylet"]
    for pid in descendants(raylet.process.pid):
        title = Path(f"/proc/{pid}/cmdline").read_text()
        if title.startswith("ray::waits"):  # not the agents of the node
            os.kill(pid, signal.SIGTERM)
    found.remove_node(nodes[0], allow_graceful=False)
    gate.touch()
    assert launcher.wait(600) == 0
    store = Store(results)
    assert len(store.records()) == 6 and not store.superseded()
    attempts = [len(list(folder.glob("lease-*.json"))) for folder in results.glob("runs/*")]
    assert sorted(attempts) == [1, 1, 1, 1, 2, 2]
    notes = [note for record in store.records() for note in record.notes]
    assert any(note.startswith("resumed after step") for note in notes), "SIGTERM saved no state"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_launchers_and_a_cluster_share_a_store(cluster, gate, suite, tmp_path):
    file = suite({"epochs": 3}, plugins=["waits"], seeds=[*range(24)])
    results = tmp_path / "results"
    launchers = [start(file, results, "ray", address=cluster[0].address)]

    def claimed(number):
        return lambda: len(list(results.glob("runs/*/lease-1.json"))) == number

    until(claimed(3), 900)
    launchers += [start(file, results) for _ in range(2)]
    until(claimed(5), 900)
    gate.touch()
    assert [one.wait(600) for one in launchers] == [0, 0, 0]
    store = Store(results)
    assert len(store.records()) == 24 and not store.superseded()
    logs = [log.read_text() for log in results.glob("runs/*/log.txt")]
    assert [log.count(": training\n") for log in logs] == [1] * 24


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_on_two_nodes_is_one_run_of_two_processes(cluster, suite, tmp_path):
    found, _ = cluster
    results, more = tmp_path / "results", ("ray", "--processes", "2")
    assert start(suite(), results, *more, address=found.address, nodes=2).wait(900) == 0
    (record,) = Store(results).records()
    assert record.environment["processes"] == 2


CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port}
SlurmdPort={next_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=10
MaxArraySize=4
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=10
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF
"""


def test_a_machine_without_a_gpu_plans_runs_for_those_that_have_one(cli, monkeypatch):
    asked = "run", "--plugins", "gap", "--executor", "slurm", "--dry-run"
    for precision in ("bf16", "tf32"):
        planned = cli(*asked, "--device", "cuda", "--set", f"precision={precision}").ok()
        assert "would run: no record" in planned.out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usual_precision({"executor": "slurm", "device": "cuda"}) == {"precision": "bf16"}
    for device, said in (("auto", "name --device cuda or --device cpu"), ("gpu", "not a device")):
        with pytest.raises(SuiteError, match=said):
            usual_precision({"executor": "slurm", "device": device})


def test_a_controller_that_does_not_answer_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(on_slurm, "_largest_array", lambda: 1)
    arrays = on_slurm._Arrays([], None, None)
    for found in (set(), None, None, set(), set()):
        monkeypatch.setattr(on_slurm, "_queued", lambda found=found: found)
        arrays._drop_vanished()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["Slurm does not answer squeue; waiting until it does", "Slurm answers again"]


def test_a_job_that_slurm_ends_says_why_and_how_to_go_on(tmp_path, monkeypatch):
    jobs = make_jobs([made_record("gap").spec], Places(results=tmp_path, cache=tmp_path), "")
    (tmp_path / "err").write_text("srun: fatal: Unable to process configuration file\n")
    monkeypatch.setattr(on_slurm, "_largest_array", lambda: 1)
    monkeypatch.setattr(on_slurm, "_queued", set)
    arrays = on_slurm._Arrays(jobs, None, SimpleNamespace(end=lambda *_: None))
    paths = SimpleNamespace(stderr=tmp_path / "err")
    arrays.pending = {0: SimpleNamespace(job_id="5_0", paths=paths)}
    arrays._drop_vanished()
    assert arrays.pending, "its result may be about to appear"
    arrays._drop_vanished()
    (outcome,) = arrays.outcomes
    assert "without a result: srun: fatal: Unable" in outcome.error
    assert "repeat the command to go on" in outcome.error


def test_a_node_decodes_with_its_own_processors_unless_told(tmp_path):
    jobs = make_jobs([made_record("gap").spec], Places(results=tmp_path, cache=tmp_path), "")
    for asked, workers in ((3, 3), (0, min(len(os.sched_getaffinity(0)), 16))):
        places = places_of(
            Suite(executor="slurm", device="cpu", workers=asked or None, results=tmp_path), {}
        )
        assert with_workers(jobs[0].model_copy(update={"places": places})).places.workers == workers


@pytest.fixture
def slurm(tmp_path, monkeypatch, gate):
    """Slurm with two partitions: jobs of ``high`` end those of ``low``."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    for program in ("munged", "slurmctld", "slurmd"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0:
        pytest.skip("slurmd is started as root only")
    folder, host = tmp_path / "slurm", socket.gethostname().partition(".")[0]
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
    (folder / "key").write_bytes(os.urandom(64))
    (folder / "key").chmod(0o400)
    port = 20_000 + os.getpid() % 10_000
    file = folder / "slurm.conf"
    file.write_text(CONFIGURATION.format(host=host, folder=folder, port=port, next_port=port + 1))
    monkeypatch.setenv("SLURM_CONF", str(file))
    munge = {"socket": "munge.socket", "key-file": "key", "pid-file": "munge/pid"}
    munge |= {"seed-file": "munge/seed", "log-file": "munge/log"}
    commands = [
        ["munged", "-F", "--force", *(f"--{k}={folder / v}" for k, v in munge.items())],
        ["slurmctld", "-D", "-f", file],
        ["slurmd", "-D", "-f", file],
    ]
    started = []
    with (folder / "output").open("w") as output:
        for command in commands:
            started.append(subprocess.Popen(command, stdout=output, stderr=output))
            time.sleep(2)
    yield
    for process in reversed(started):
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_an_array_of_six_of_which_one_is_pre_empted_is_finished(
    slurm, quick, gate, suite, tmp_path
):
    file, results = suite(plugins=["waits"], seeds=[0, 1, 2, 3, 4, 5]), tmp_path / "results"
    launcher = start(file, results, "slurm", partition="low", cpus_per_task=1)
    files = results.glob
    until(lambda: any('"training"' in one.read_text() for one in files("runs/*/status.json")), 300)
    other = ["sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 5"]
    subprocess.run(other, check=True)
    until(lambda: list(files("runs/*/state.pt")), 100)
    gate.touch()
    assert launcher.wait(800) == 0
    store = Store(results)
    assert len(store.records()) == 6 and not store.superseded()
    attempts = [len(list(folder.glob("lease-*.json"))) for folder in results.glob("runs/*")]
    assert max(attempts) == 2, "none was pre-empted"
    arrays = {file.name.split("_")[0] for file in (results / "slurm").glob("*_result.pkl")}
    assert len(arrays) == 2, "the site takes arrays of four"


@pytest.mark.slow
def test_a_run_that_uses_up_its_time_goes_on_in_another_job(slurm, quick, gate, suite, tmp_path):
    file, results = suite(plugins=["waits"]), tmp_path / "results"
    limits = {"partition": "high", "cpus_per_task": 1, "time": 6, "signal_delay_s": 120}
    launcher = start(file, results, "slurm", **limits)
    until(lambda: list(results.glob("runs/*/state.pt")), 900)
    gate.touch()
    assert launcher.wait(900) == 0
    (record,) = Store(results).records()
    assert record.notes[-1] == "resumed after step 3"
