"""The examples of plugins/README.md are plugins that pass their checks and run."""

import re
import tomllib
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "plugins" / "README.md").read_text()


@pytest.fixture
def acme(install):
    """A distribution of all examples, registered as the page says."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (registered,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    groups = tomllib.loads(registered)["project"]["entry-points"]
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    install("acme", "\n\n".join(blocks), "\n".join(lines))
    return groups


def test_there_is_one_example_of_each_kind(acme):
    kinds = ("heads", "losses", "backbones", "datasets", "commands", "trackers")
    assert acme.keys() == {f"mlbench.{kind}" for kind in kinds}


@pytest.mark.parametrize("name", ["top_mean", "hinge", "patches", "stripes"])
def test_the_checks_pass(acme, cli, name):
    cli("check", name).ok()


def test_the_command_prints_what_the_page_says(acme, cli):
    said = re.search(r"`\$ mlbench (parameters top_mean)` then prints (\d+)", PAGE)
    assert cli(*said[1].split()).out.strip() == said[2]


def test_they_run_together(acme, cli, tmp_path):
    chosen = ("--plugins", "top_mean,hinge,stripes", "--tracker", "notebook")
    cli("run", *chosen, "--seeds", "0", "--set", "measure=false").ok()
    notes = (tmp_path / "results/notebook.txt").read_text()
    told = [line.split()[0] for line in notes.splitlines()]
    assert [told[0], *told[-2:]] == ["runs", "epoch", "record"] and "step" in told
