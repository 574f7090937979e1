"""What the READMEs show is what is there."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from mlbench import suite, suite_file
from mlbench.cli import make_app
from mlbench_tools.costs.profile import method_table

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "plugins").rglob("README.md")),
]


def block(name):
    """The fenced block of the README below a comment of this name."""
    text = (ROOT / "README.md").read_text()
    return re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```", text, re.DOTALL)[1]


def commands():
    """Every `mlbench` command that a page shows, in a block or in a line."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for fence in re.findall(r"```(?:\w*)\n(.*?)```", text, re.DOTALL):
            for line in fence.splitlines():
                if found := re.search(r"(?:^|&& |-m )(mlbench [a-z].*)", line):
                    yield found[1].split(" #")[0]
        plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for found in re.findall(r"`(mlbench [a-z][^`]*)`", plain):
            yield " ".join(found.split())


@pytest.fixture(scope="module")
def app():
    return typer.main.get_command(make_app())


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_shown_exists_with_its_flags(app, command):
    words = [w for w in shlex.split(command)[1:] if w != "..."]
    words = ["name" if w in ("NAME", "NAME...") else w for w in words]
    verb = app.get_command(None, words.pop(0))
    while verb is not None and words and hasattr(verb, "get_command"):
        verb = verb.get_command(None, words.pop(0))
    assert verb is not None, f"there is no `{command}`"
    if hasattr(verb, "get_command"):  # a group alone: `mlbench data`
        return
    required = verb.name in ("show", "check") and not words
    verb.make_context(verb.name, words + (["name"] if required else []))


def test_the_head_shown_is_the_example():
    assert block("head") == (ROOT / "tests/third_party/mlbench_max_mean/__init__.py").read_text()


def test_the_suite_shown_is_a_suite():
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    made = suite.make_suite(yaml.safe_load(text))
    assert made.methods == ("ssgrl", "msrn") and made.labels == ("person", "dog", "cat")


def test_the_methods_table_is_made_of_the_cards():
    text = (ROOT / "plugins" / "mlbench_plugins" / "README.md").read_text()
    shown = re.search(r"<!-- methods -->\n(.*?)<!-- /methods -->", text, re.DOTALL)[1]
    assert shown == method_table(), "put the output of `mlbench profile --cards` into the page"


def test_ci_runs_the_readmes_commands():
    assert "mlbench run --plugins ssgrl,msrn" in block("run")
    assert block("test") == "pip install -e '.[dev]' && pytest\n"
    script = (ROOT / ".ci" / "run").read_text()
    assert "readme run" in script and "readme test" in script


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "benchmarks").glob("*.yaml")))
def test_every_suite_file_is_a_suite(name):
    fields = suite_file.read_suite(ROOT / "benchmarks" / name)
    suite.make_suite({"plugins": ("gap",), **fields}, name)
