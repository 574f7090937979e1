"""``beside`` times a fast form and a plain one in turns; ``--speed`` keeps what was found.

Both forms, and the work that bounds them (the roof), run one after another in every round, on one
thread, and their processor time counts: other work on the machine slows all of them.
"""

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from mlbench.engine.cost import device_name, peak_memory
from mlbench.provenance import commit

RESULTS = Path(__file__).parent.parent / "results" / "speed"
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn")
ROUNDS = 2, 25
ROWS, START = pytest.StashKey[list](), pytest.StashKey[tuple]()


def pytest_addoption(parser):
    parser.addoption("--speed", metavar="NAME", help="write results/speed/NAME.json and NAME.md")
    parser.addoption("--full", action="store_true", help="batches of 4 for the slowest rows, too")


def pytest_configure(config):
    config.stash[ROWS], config.stash[START] = [], (os.getloadavg()[0], commit())
    config.option.benchmark_quiet = True
    # Of a test that Ctrl-C ends: the rows before it are still written.
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=time.process_time))


@pytest.fixture
def batch(request):
    return 4 if request.config.getoption("--full") else 1


@pytest.fixture
def beside(benchmark, request):
    def compare(
        what, plain, ours, goal, *, roof=None, parts=1, calls=1, error=None, memory=None, seconds=2
    ):
        """Add a row to the results.

        Args:
            what: is done by both.
            plain: the reference; does one part in ``parts`` of the work.
            ours: the fast form; called so often in a round.
            goal: of the ratio of their times; None for none.
            roof: the name of what bounds it, a call, and how many calls are the whole work.
            error: of our result; None takes it from what both return.
            memory: goal of the ratio of their peaks of memory; None leaves these out.
            seconds: of processor time, which decides the number of rounds.
        """
        name, work, whole = roof or ("", int, 0)
        times = []

        def others():
            times.append((parts * _seconds(plain), whole * _seconds(work)))

        def repeated():
            for _ in range(calls):
                ours()

        began = time.process_time()
        (want, most), (got, least) = rise(plain), rise(ours)  # which warm up, too
        error = difference(want, got) if error is None else error
        del want, got
        rounds = int(seconds / (time.process_time() - began))
        rounds = min(max(rounds, ROUNDS[0]), ROUNDS[1])
        benchmark.pedantic(repeated, setup=others, rounds=rounds)
        ours_s = np.array(benchmark.stats.stats.data) / calls
        plain_s, roof_s = np.array(times).T
        low, ratio, high = np.quantile(plain_s / ours_s, (0.25, 0.5, 0.75)).tolist()
        row = {
            "file": request.path.stem.removeprefix("test_"), "what": what, "goal": goal,
            "ratio": ratio, "quartiles": [low, high], "rounds": rounds, "error": error,
            "plain ms": 1000 * np.median(plain_s).item(), "ms": 1000 * np.median(ours_s).item(),
        }  # fmt: skip
        if roof:
            row |= {"roof": name, "share": np.median(roof_s / ours_s).item()}
        if memory is not None:
            row |= {"plain MiB": most, "MiB": least, "memory goal": memory}
        request.config.stash[ROWS].append({key: _short(value) for key, value in row.items()})

    return compare


def _seconds(call):
    began = time.process_time()
    call()
    return time.process_time() - began


def difference(want, got):
    """The largest error relative to the largest number of all; None if there is nothing."""
    wanted, found = (
        [torch.as_tensor(x).detach().double() for x in tree_leaves(tree) if x is not None]
        for tree in (want, got)
    )
    errors = [(a - b).abs().max() for a, b in zip(wanted, found, strict=True)]
    return (max(errors) / max(x.abs().max() for x in wanted)).item() if errors else None


def rise(call):
    """What a call returns, and the most memory in MiB that it takes besides what is there."""
    results, module = [], torch.nn.Module()
    module.forward = lambda _: results.append(call())
    return results, peak_memory(module, None, torch.device("cpu"))[0] / 2**20


# ------------------------------------------------------------------------------------------- roofs
def gemm(flops):
    """Float32 matrix products of this work."""
    a = torch.rand(1024, 1024)
    return "GEMM", lambda: a @ a, flops / 2**31


def elementwise(function, results):
    """So many results of a function, of numbers that stay in a core's second cache."""
    x, out = torch.randn(2, 1 << 17)
    return function.__name__, lambda: [function(x, out=out) for _ in range(8)], results / 2**20


# ----------------------------------------------------------------------------------------- results
def _short(value):
    if isinstance(value, list):
        return [_short(x) for x in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def table(rows):
    """Lines of Markdown."""
    yield "| file | what | ratio | quartiles | goal | plain: ours, ms | MiB | roof | error |"
    yield "| --- | --- | ---: | --- | ---: | --- | --- | --- | --- |"
    for row in rows:
        (low, high), goal = row["quartiles"], row["goal"]
        met = "" if goal is None else f"{goal:g}x{', missed' * (high < goal)}"
        memory = ""
        if "MiB" in row:
            times = row["plain MiB"] / max(row["MiB"], 0.01)
            memory = f"{row['plain MiB']:g}: {row['MiB']:g} ({times:.3g}x of {row['memory goal']}x)"
        share = f"{row['share']:.0%} of {row['roof']}" if "share" in row else ""
        error = "" if row["error"] is None else f"{row['error']:.1g}"
        yield (
            f"| {row['file']} | {row['what']} | {row['ratio']:g}x | {low:g} to {high:g} | {met} "
            f"| {row['plain ms']:g}: {row['ms']:g} | {memory} | {share} | {error} |"
        )


def pytest_terminal_summary(terminalreporter, config):
    rows, name = config.stash[ROWS], config.getoption("--speed")
    lines = list(table(rows)) if rows else []
    terminalreporter.write_line("\n".join(lines))
    if not name:
        return
    load, code = config.stash[START]
    machine = {
        "cpu": device_name(torch.device("cpu")), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": f"{load:.1f} to {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(), **{name: version(name) for name in LIBRARIES},
        "commit": code, "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    (RESULTS / f"{name}.md").write_text("\n".join(["# Speed", "", about, "", *lines, ""]))
    body = ",\n  ".join(json.dumps(row) for row in rows)
    text = f'{{"machine": {json.dumps(machine)},\n "rows": [\n  {body}]}}\n'
    (RESULTS / f"{name}.json").write_text(text)
