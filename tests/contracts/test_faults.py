"""One fault is one line: what is wrong, with the file and line of the plugin's own source."""

import inspect
import re
from pathlib import Path

import pytest

from mlbench import contracts, registry
from mlbench.registry import Plugin

FOLDER = Path(__file__).parent
SOURCE = (FOLDER / "broken_plugins.py").read_text().splitlines()


@pytest.fixture
def broken(monkeypatch):
    """The module of broken plugins, imported as a third party's of one file."""
    monkeypatch.syspath_prepend(FOLDER)
    import broken_plugins

    return broken_plugins


def names():
    classes = [line.removeprefix("class ") for line in SOURCE if line.startswith("class ")]
    found = [(name, base.rstrip("):")) for name, base in (c.split("(") for c in classes)]
    return [(name, base) for name, base in found if base in KINDS]


KINDS = {"Head": "head", "Loss": "loss", "Backbone": "backbone", "Data": "dataset"}


@pytest.mark.parametrize(("name", "base"), names(), ids=lambda one: one)
def test_a_fault_is_one_line_with_file_line_and_remedy(broken, name, base):
    cls = getattr(broken, name)
    plugin = Plugin(KINDS[base], "mine", f"broken_plugins:{name}", "mine", "1.0")
    faults = [r for r in contracts.check(plugin) if not (r.ok or r.cause)]
    lines, start = inspect.getsourcelines(cls)
    marked = [start + i for i, text in enumerate(lines) if text.rstrip().endswith("# fault")]
    marked += [i + 1 for i, text in enumerate(SOURCE) if text.endswith(f"# fault {name}")]
    (fault,) = faults
    file, _, line = fault.line.rpartition(":")
    assert (Path(file).resolve(), [int(line)]) == (FOLDER / "broken_plugins.py", marked)
    assert cls.__doc__ in fault.reason
    assert "\n" not in str(fault)


def test_the_checks_that_follow_name_the_one_that_found_the_fault(broken):
    results = contracts.check(Plugin("head", "mine", "broken_plugins:ReturnsATensor", "m", "1.0"))
    failed = [r.name for r in results if not r.ok]
    assert len(failed) > 10
    assert {r.cause for r in results if not r.ok} == {"", failed[0]}
    assert {r.name for r in results} >= {c.__name__ for c in contracts.checks_of("head")}


FEW = "--set", "dataset_options={train_images: 40, test_images: 20, size: 32}"
ENTRY = "[mlbench.heads]\nmine = acme:Mine\n"
HEAD = """
import time
from torch import nn
from mlbench.types import HeadOutput
{first}
class Mine(nn.Module):
    def __init__(self, spec, labels):
        super().__init__()
        self.fc = nn.Linear(spec[-1].channels, len(labels))
    def forward(self, features):
        {then}
        return HeadOutput(self.fc(features[-1].mean((2, 3))))
"""


@pytest.mark.parametrize(
    ("first", "line", "said"),
    [
        ("import torchvison", 5, "ModuleNotFoundError: No module named 'torchvison'"),
        ("def broken(:", 5, "SyntaxError"),
        ("raise SystemExit(1)", 5, "SystemExit: 1"),
    ],
)
def test_a_module_that_cannot_be_imported_is_said_in_one_line(install, cli, first, line, said):
    install("acme", HEAD.format(first=first, then="pass"), ENTRY)
    done = cli("check", "mine")
    (failed,) = [text for text in done.out.splitlines() if "FAIL" in text]
    assert f"acme.py:{line}: head 'mine' of acme 1.0 cannot be imported" in failed
    assert said in failed
    assert done.code == 1


def test_an_option_that_no_record_holds_is_found_before_a_run(install, cli):
    source = HEAD.format(first="", then="pass").replace("labels):", "labels, *, act=max):")
    install("acme", source, ENTRY)
    done = cli("check", "mine")
    assert done.code == 1 and "cannot be written to a record" in done.out
    assert "let its options be numbers, texts, lists of them or None" in done.out


def test_a_plugin_of_another_kind_is_checked_once_that_kind_has_checks(install, cli):
    check = "def keeps_its_results(one):\n    assert one(3).results == 3, 'where are they?'\n"
    tracker = "class Log:\n    def __init__(self, results):\n        self.results = 2 * results\n"
    entries = "[mlbench.trackers]\nlog = acme:Log\n[mlbench.checks]\ntracker = acme"
    install("acme", check + tracker, entries)
    done = cli("check", "log")
    assert done.code == 1 and "FAIL keeps_its_results: " in done.out
    assert "where are they?" in done.out


def test_what_is_printed_and_what_is_slow_is_remarked_once(install, cli):
    slow = "print('here'); time.sleep(0.1 * (features[0].shape[3] == 28))"  # where it is timed
    install("acme", HEAD.format(first="", then=slow), ENTRY)
    remarks = [text for text in cli("check", "mine").ok().out.splitlines() if "remark: " in text]
    assert [text.split()[1] for text in remarks] == ["keeps_up_with_pooling:", "prints:"]
    assert "times as long as average pooling" in remarks[0]
    assert "acme.py:10" in remarks[0]
    assert "the first: 'here'" in remarks[1]


def test_a_head_that_cannot_be_made_is_refused_when_planned_with_its_line(install, cli, tmp_path):
    install("acme", HEAD.format(first="", then="pass").replace("spec[-1]", "spec[7]"), ENTRY)
    with pytest.raises(registry.PluginError, match=r"IndexError.*\(\S*acme\.py:\d+\)"):
        registry.make("head", "mine", ((), ()), {})
    done = cli("run", "--plugins", "mine,gap", "--dry-run", "--results", str(tmp_path), *FEW)
    assert "refused" in (done.out + done.err)
    assert re.search(r"acme\.py:\d+\)", "".join((done.out + done.err).split()))
    assert done.code == 1, "as the run itself ends"


def test_a_run_that_dies_in_a_foreign_plugin_names_its_line(install, cli, tmp_path):
    source = HEAD.format(first="", then="self.fc(features) if features[0].is_cpu else 0")
    install("acme", source, ENTRY)
    command = ["--epochs", "1", "--image-size", "32", "--results", str(tmp_path), *FEW]
    done = cli("run", "--plugins", "mine", *command)
    said = " ".join((done.out + done.err).split())
    assert re.search(r"acme\.py:\d+\); `mlbench check mine` may say more", said), said
