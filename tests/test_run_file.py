"""A run file holds all of a run, for a person and for mlbench."""

from pathlib import Path

import pytest
import yaml

from mlbench import run_file
from mlbench.store import Store
from mlbench.types import SuiteError
from tests.store.made import made_record


@pytest.fixture(scope="module")
def records():
    return Store(Path(__file__).parent.parent / "results").records()


def test_every_committed_run_is_written_without_loss(records):
    assert len(records) > 50
    for record in records:
        run = run_file.from_yaml(run_file.to_yaml(record))
        assert run == run_file.from_record(record)
        assert run.run_id == record.run_id == run.spec.run_id


def test_a_name_that_yaml_has_a_meaning_for_stays_a_name():
    names = ("yes", "1e3", "null", "# é", "a: b", "010", "08", "1:30", "2024-01-02")
    odd = {"spec": {"labels": names, "words": "random"}}
    settings = {"head_options": {"width": 1e-5, "which": "off"}}
    for fields in ({"command": "mlbench run\nmore: 3"}, {"status": "diverged", "scores": None}):
        record = made_record(**odd, settings=settings, **fields)
        assert run_file.from_yaml(run_file.to_yaml(record)) == run_file.from_record(record)


def test_what_may_change_digits_is_said_where_it_was_recorded():
    environment = {"versions": {"torch": "1"}, "device": "cpu", "threads": 4, "python": "3.9"}
    run = run_file.from_record(made_record(environment=environment, commit="c" * 40))
    here = environment | {"versions": {"torch": "2"}, "threads": 8, "python": "3", "processes": 2}
    assert run_file.environment_differences(run, here, None) == (
        'the run was made with versions {"torch": "1"} (here {"torch": "2"}); threads 4 (here 8); '
        f"commit {'c' * 40} (here unknown): its numbers may differ"
    )
    bare = run.model_copy(update={"environment": None, "commit": None})
    assert run_file.environment_differences(bare, here, "d" * 40) == ""


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"command": "mlbench run --plugins gap --data=x"}, "--data DIR"),
        ({"command": "mlbench run --plugins gap --datasets x"}, ""),
        ({"settings": {"weights": "sha256:ab"}}, "--weights FILE"),
        ({"spec": {"words": "sha256:ab"}}, "--words FILE"),
        ({"spec": {"init": "sha256:ab"}}, "--init FILE"),
        ({"spec": {"processes": 2}}, "--processes 2"),
    ],
)
def test_the_command_asks_for_what_the_run_had(fields, more):
    command = run_file.repeat_command(made_record(**fields), "mine.yaml")
    assert command == f"mlbench repeat mine.yaml --results repeated {more}".strip()


def test_a_checkpoint_that_was_scored_is_scored_again_by_its_own_command():
    record = made_record(spec={"checkpoint": "sha256:ab"}, command="mlbench evaluate x")
    assert run_file.repeat_command(record) == "mlbench evaluate x"


def test_a_spec_alone_is_a_run_file(records):
    plain = records[0].spec.model_dump(mode="json", exclude_defaults=True)
    run = run_file.from_yaml(yaml.safe_dump(plain))
    assert run.spec == records[0].spec and run.run_id is None and run.environment is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: {", "is not YAML"),
        ("method: gap", "describes no run"),
        ("- gap", "describes no run (it is not a mapping of names to values)"),
        ("[" * 1000, "is not YAML (maximum recursion depth exceeded"),
        ("settings: &a [*a]", "is not YAML (found unconstructable recursive node"),
        ("method: " + "9" * 5000, "describes no run (dataset"),
    ],
)
def test_texts_that_describe_no_run(text, message):
    with pytest.raises(SuiteError) as raised:
        run_file.from_yaml(text)
    assert message in str(raised.value)
