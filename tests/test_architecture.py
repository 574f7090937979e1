"""The house rules that a reader of the tree relies on."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "plugins" / "mlbench_tools"
SOURCES = sorted([*(ROOT / "mlbench").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])

# What a module of the core may import of the core; `None` is everything.
LANES = {
    "types": {"types"},
    "files": set(),
    "text": {"types"},
    "registry": {"types", "text"},
    "metrics": {"types", "text", "metrics"},
    "store": {"types", "files", "text", "metrics", "store"},
    "run_file": {"types", "text"},
    "data": {"types", "files", "text", "registry", "data"},
    "tracks": {"types", "text", "registry"},
    "suite": {"types", "text", "registry", "tracks"},
    "plan": {"types", "text", "files", "registry", "tracks", "suite", "data", "build", "store"},
    "contracts": {"types", "registry", "tracks", "contracts"},
    "engine": {"types", "files", "metrics", "data", "engine"},
    "boards": {"types", "files", "text", "metrics", "store", "boards"},
    "counting": {"types", "registry", "contracts", "data", "engine", "build"},
    "build": {"types", "files", "text", "registry", "data", "engine"},
    "one_run": {"types", "registry", "metrics", "data", "engine", "build"},
    "executors": None,
    "cli": None,
    "__main__": {"cli"},
    "__init__": set(),
}


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
        outside = ("mlbench_plugins", "mlbench_tools")
        assert not name.startswith(outside), f"the core imports {name}"
        target = room(name)
        if target not in (None, "__init__") and allowed is not None:
            assert target in allowed, f"{own} must not import {name}"


@pytest.mark.parametrize("file", [f for f in SOURCES if "mlbench_tools" in f.parts], ids=str)
def test_tools_see_the_core_but_neither_plugins_nor_each_others_insides(file):
    folder = ".".join(("mlbench_tools", *file.relative_to(TOOLS).parts[:1])).removesuffix(".py")
    for name in imports(file):
        assert not name.startswith("mlbench_plugins"), f"a tool imports the plugin {name}"
        if name.startswith("mlbench_tools"):
            assert f"{name}.".startswith(f"{folder}."), f"{folder} imports {name}"


def modules_of_plugins():
    """Modules that hold a plugin, as dotted names."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    return {value.partition(":")[0] for table in tables.values() for value in table.values()}


@pytest.mark.parametrize("file", [f for f in SOURCES if "mlbench_plugins" in f.parts], ids=str)
def test_plugins_see_the_vocabulary_and_what_is_shared_but_never_each_other(file):
    folder = f"mlbench_plugins.{file.parent.name}."
    for name in imports(file):
        if name.startswith("mlbench."):
            allowed = ("mlbench.types.", "mlbench.text.", "mlbench.files.")
            assert name.startswith(allowed), f"a plugin imports {name}"
        if name.startswith("mlbench_plugins."):
            assert name.startswith(("mlbench_plugins.layers.", folder)), f"a plugin imports {name}"
            assert name.rpartition(".")[0] not in modules_of_plugins(), f"imports the plugin {name}"


def test_no_room_has_a_name_that_says_nothing():
    for file in SOURCES:
        assert file.stem not in {"utils", "helpers", "common", "manager", "base"}, file


def test_the_command_line_answers_without_torch_plugins_and_what_else_takes_long():
    code = (
        "import sys, mlbench, mlbench.cli, mlbench.registry as r; r.plugins();"
        "heavy = {'torch', 'timm', 'torchvision', 'pandas', 'mlbench_plugins', 'numpy', 'scipy',"
        "'pydantic', 'yaml', 'filelock', 'mlbench.boards.rows'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_entry_point_of_pyproject_is_installed():
    from mlbench.registry import PLURALS, plugins

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    named = {
        (kind, name, value)
        for kind, plural in PLURALS.items()
        for name, value in wanted.get(f"mlbench.{plural}", {}).items()
    }
    installed = {
        (p.kind, p.name, p.value)
        for kind in PLURALS
        for p in plugins(kind)
        if p.distribution == "mlbench-mlic"
    }
    assert named == installed, "entry points changed: reinstall with `pip install -e .`"
