"""The house rules that a reader of the tree relies on."""

import ast
import importlib
import os
import subprocess
import sys
import threading
import tomllib
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlbench.cli import main, matrix, planning
from mlbench.engine.distributed import World
from mlbench.executors import fork_server, forking, local, worker
from mlbench.registry import PLURALS, plugins

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "plugins" / "mlbench_tools"
SOURCES = sorted([*(ROOT / "mlbench").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])

# What a module of the core may import of the core; `None` is everything.
LANES = {
    "types": "types",
    "files": "",
    "text": "types",
    "registry": "types text",
    "leases": "types",
    "numbers": "types files registry",
    "metrics": "types text metrics",
    "evidence": "types text metrics",
    "store": "types files text metrics evidence",
    "run_file": "types text evidence",
    "data": "types files text registry data",
    "tracks": "types text registry data",
    "suite": "types text registry tracks",
    "suite_file": "types text registry tracks suite",
    "plan": "types text files registry tracks suite data build preflight store numbers",
    "contracts": "types registry contracts",
    "engine": "types files leases text metrics data engine",
    "boards": "types files text numbers metrics store boards",
    "build": "types files text registry numbers data engine",
    "preflight": "types text registry metrics data engine build",
    "provenance": "types registry numbers engine",
    "one_run": "types text metrics data engine build preflight provenance",
    "api": None,
    "trained_model": "types files text data engine",
    "executors": None,
    "cli": None,
    "__main__": "cli",
    "__init__": "api",
}


BUDGETS = {
    "mlbench": 18_200,
    "plugins/mlbench_plugins": 11_140,
    "plugins/mlbench_tools": 12_540,
    "tests": 26_090,
}
"""Lines of Python in each folder; see mlbench/ARCHITECTURE.md."""

SHARED = ("mlbench_tools.scoring.", "mlbench_tools.costs.counting.")
"""What tools may import of other tools: protocols, and a model's counted costs."""

FEWEST = 60
"""Lines of a core module that a single other one imports; a shorter one belongs into that."""

TRACED = 78
"""Files that one run may enter at most."""


@pytest.mark.parametrize("folder", BUDGETS)
def test_a_folder_keeps_its_budget(folder, capsys):
    files = list((ROOT / folder).rglob("*.py"))
    lines = sum(len(file.read_text().splitlines()) for file in files)
    with capsys.disabled():
        print(f"\n{folder}: {lines:,} of {BUDGETS[folder]:,} lines, {len(files)} files")
    assert lines <= BUDGETS[folder]


def module(file):
    """The dotted name of a source file; a package is called as its folder."""
    root = ROOT / "plugins" if file.is_relative_to(ROOT / "plugins") else ROOT
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_a_small_module_of_the_core_has_several_importers():
    modules = {module(file): file for file in SOURCES}
    importers = defaultdict(set)
    for name, file in modules.items():
        for found in imports(file):
            importers[found if found in modules else found.rpartition(".")[0]].add(name)
    small = {
        name: importers[name]
        for name, file in modules.items()
        if name.startswith("mlbench.")
        and file.name not in ("__init__.py", "__main__.py")
        and len(file.read_text().splitlines()) < FEWEST
        and len(importers[name]) == 1
    }
    assert not small, "merge each into the one that imports it"


def test_one_name_means_one_thing_and_no_room_has_a_name_that_says_nothing():
    names = defaultdict(set)
    for file in SOURCES:
        assert file.stem not in {"utils", "helpers", "common", "manager", "base"}, file
        names[f"module {module(file).rpartition('.')[2]}"].add(module(file))
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                names[f"class {node.name}"].add(module(file))
    assert not {name: places for name, places in names.items() if len(places) > 1}


def enter_files(tell):
    """Runs in a child: make one run there; returns the files that it enters.

    The child has imported all that a run needs, which would take long under a trace.
    """
    entered = set()

    def enter(frame, *_):  # as it returns nothing, it is told of calls alone
        entered.add(frame.f_code)

    def call(function, *args, **_):
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)(*args, lambda *_: None)

    def execute(jobs, options, progress):
        return [worker.carry_out(job, World(), progress.begin(1, 1, job.spec)) for job in jobs]

    matrix.call = planning.call = call
    local.execute = execute  # in this process, to see what they enter
    threading.settrace(enter)
    sys.settrace(enter)
    sys.argv = ["mlbench", "run", "--plugins", "gap", "--epochs", "1", "--image-size", "32"]
    sys.argv += ["--set", "dataset_options={train_images: 40, test_images: 20, size: 32}"]
    try:
        main()
    except SystemExit as end:
        assert not end.code
    sys.settrace(None)
    return {code.co_filename for code in entered if code.co_name != "<module>"}


def test_one_run_enters_few_files(tmp_path, cache, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLBENCH_CACHE", str(cache))
    forking.load_models(os.getpid())
    entered = forking.call(f"{__name__}:{enter_files.__name__}", stall=300, relay=print)
    files = entered & set(map(str, SOURCES)) - {fork_server.__file__}  # which prints for a child
    files |= {forking.__file__, local.__file__}
    with capsys.disabled():
        print(f"\none run enters {len(files)} of {len(SOURCES)} files")
    assert str(ROOT / "plugins/mlbench_plugins/methods/pooling.py") in entered
    assert len(files) <= TRACED, "\n".join(sorted(files))


def imports(file):
    """Absolute names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name):
    """The part of the core that `mlbench.x.y` belongs to; None for other packages."""
    parts = name.split(".")
    if parts[0] != "mlbench" or len(parts) < 2:
        return None
    return parts[1] if parts[1] in LANES else "__init__"


@pytest.mark.parametrize("file", sorted((ROOT / "mlbench").rglob("*.py")), ids=str)
def test_the_core_keeps_its_lanes(file):
    own = file.relative_to(ROOT / "mlbench").parts[0].removesuffix(".py")
    allowed = LANES[own]
    for name in imports(file):
        assert not name.startswith(("mlbench_plugins", "mlbench_tools")), f"the core imports {name}"
        target = room(name)
        if target not in (None, "__init__") and allowed is not None:
            assert target in allowed.split(), f"{own} must not import {name}"


@pytest.mark.parametrize("file", [f for f in SOURCES if "mlbench_tools" in f.parts], ids=str)
def test_tools_see_the_core_but_neither_plugins_nor_each_others_insides(file):
    folder = ".".join(("mlbench_tools", *file.relative_to(TOOLS).parts[:1])).removesuffix(".py")
    for name in imports(file):
        assert not name.startswith("mlbench_plugins"), f"a tool imports the plugin {name}"
        if name.startswith("mlbench_tools"):
            assert f"{name}.".startswith((f"{folder}.", *SHARED)), f"{folder} imports {name}"


ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
HOLD_A_PLUGIN = {v.partition(":")[0] for table in ENTRY_POINTS.values() for v in table.values()}
"""Modules that hold a plugin, as dotted names."""


@pytest.mark.parametrize("file", [f for f in SOURCES if "mlbench_plugins" in f.parts], ids=str)
def test_plugins_see_the_vocabulary_and_what_is_shared_but_never_each_other(file):
    folder = f"mlbench_plugins.{file.parent.name}."
    for name in imports(file):
        if name.startswith("mlbench."):
            allowed = ("mlbench.types.", "mlbench.text.", "mlbench.files.")
            assert name.startswith(allowed), f"a plugin imports {name}"
        if name.startswith("mlbench_plugins."):
            assert name.startswith(("mlbench_plugins.layers.", folder)), f"a plugin imports {name}"
            assert name.rpartition(".")[0] not in HOLD_A_PLUGIN, f"imports the plugin {name}"


COMMAND = "from mlbench.cli import make_app; make_app({0})({0}, standalone_mode=False)"
HEAVY = {"torch", "timm", "torchvision", "pandas", "mlbench_plugins", "numpy", "scipy"}
LIGHT = {
    "import mlbench, mlbench.cli, mlbench.registry as r; r.plugins()": (
        HEAVY | {"pydantic", "yaml", "filelock", "mlbench.boards.rows"}
    ),
    COMMAND.format(["--help"]): HEAVY | {"yaml", "jinja2"},
    COMMAND.format(["list", "--kind", "loss"]): {"torch"},
    # What a plan of known runs answers, which is made in another process.
    "import mlbench.cli.matrix, mlbench.types as t; t.Plan, t.RunRecord": {
        "torch",
        "timm",
        "torchvision",
    },
}
"""What is asked -> modules of which it imports none, as that takes long."""


@pytest.mark.parametrize(("code", "heavy"), LIGHT.items(), ids=range(len(LIGHT)))
def test_the_command_line_answers_without_torch_plugins_and_what_else_takes_long(code, heavy):
    code += f"; import sys; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_entry_point_of_pyproject_is_installed():
    named = {
        (kind, name, value)
        for kind, plural in PLURALS.items()
        for name, value in ENTRY_POINTS.get(f"mlbench.{plural}", {}).items()
    }
    installed = {
        (p.kind, p.name, p.value)
        for kind in PLURALS
        for p in plugins(kind)
        if p.distribution == "mlbench-mlic"
    }
    assert named == installed, "entry points changed: reinstall with `pip install -e .`"


def test_benchmarks_import_what_there_is():
    """They are run by hand, and would be found broken by whoever needs them."""
    for file in (ROOT / "benchmarks").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlbench"):
                found = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    package = hasattr(found, "__path__")
                    known = hasattr(found, name) or (package and find_spec(f"{node.module}.{name}"))
                    assert known, f"{file.name}: {node.module} has no {name}"
