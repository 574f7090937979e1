"""Runs on a Ray cluster of three nodes on this machine (slow); what no engine can start."""

import os
import signal
import sys
from pathlib import Path

import pytest

from mlbench.executors import Options, make_jobs
from mlbench.executors.run_status import overview
from mlbench.store import Store
from mlbench.types import Places, SuiteError
from mlbench_tools.engines import on_ray, on_slurm
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
