"""What decides whether a record still counts: the numbers of core and plugins, and nothing else."""

import pytest

from mlbench import numbers
from tests.store.made import made_record

PLUGINS = ("backbone resnet18", "head gap", "loss bce", "dataset synthetic")


def record(**fields):
    made = made_record("gap", spec={"dataset": "synthetic"})
    return made.model_copy(update={"numbers": numbers.numbers_of(made.spec), **fields})


def test_numbers_name_the_core_and_each_plugin_of_a_run():
    assert record().numbers == {"core": numbers.NUMBERS} | dict.fromkeys(PLUGINS, 1)
    assert numbers.outdated(record()) == ""


def test_a_record_without_numbers_is_of_other_code():
    assert "other code" in numbers.outdated(record(numbers={}))


def test_a_core_that_changed_results_is_named(monkeypatch):
    made = record()
    monkeypatch.setattr(numbers, "NUMBERS", numbers.NUMBERS + 1)
    expected = f"core numbers {numbers.NUMBERS - 1}, now {numbers.NUMBERS}"
    assert numbers.outdated(made) == expected


@pytest.mark.parametrize(
    ("declared", "number"), [("", 1), ("NUMBERS = 7", 7), ("x = 'NUMBERS'", 1)]
)
def test_a_plugin_declares_its_number_in_its_module_without_being_imported(
    declared, number, install
):
    install("acme", f"{declared}\nraise ImportError\n", "[mlbench.heads]\nnew = acme:New")
    made = made_record("new", spec={"dataset": "synthetic"})
    assert numbers.numbers_of(made.spec)["head new"] == number
    old = made.model_copy(update={"numbers": {"core": numbers.NUMBERS, "head new": 9}})
    assert numbers.outdated(old) == f"head new numbers 9, now {number}"


def test_a_plugin_that_is_not_installed_is_not_counted_against_a_record():
    assert numbers.outdated(record(numbers={"core": numbers.NUMBERS, "head gone": 3})) == ""


def test_the_digest_of_the_sources_covers_core_and_plugins(install):
    module = install("acme", "", "[mlbench.heads]\nnew = acme:New")
    of_gap = numbers.sources_of(record().spec)
    spec = made_record("new", spec={"dataset": "synthetic"}).spec
    before = numbers.sources_of(spec)
    module.write_text("# changed\n")
    assert len({of_gap, before, numbers.sources_of(spec)}) == 3
    assert numbers.sources_of(record().spec) == of_gap
