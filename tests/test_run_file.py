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
        assert run.run_id == record.run_id
        assert run.run_id == run.spec.run_id


def test_a_name_that_yaml_has_a_meaning_for_stays_a_name():
    names = ("yes", "1e3", "null", "# é", "a: b", "010", "08", "1:30", "2024-01-02")
    odd = {"spec": {"labels": names, "words": "random"}}
    record = made_record(**odd, settings={"head_options": {"width": 1e-5, "which": "off"}})
    assert run_file.from_yaml(run_file.to_yaml(record)) == run_file.from_record(record)


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"command": "mlbench run --plugins gap --data x"}, "--data DIR"),
        ({"command": "mlbench run --plugins gap --datasets x"}, ""),
        ({"settings": {"weights": "sha256:ab"}}, "--weights FILE"),
        ({"spec": {"words": "sha256:ab"}}, "--words FILE"),
        ({"spec": {"processes": 4}}, "--processes 4"),
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
        ("[" * 1000, "is not YAML (maximum recursion depth exceeded"),
        ("settings: &a [*a]", "is not YAML (found unconstructable recursive node"),
        ("method: " + "9" * 5000, "describes no run (dataset"),
    ],
)
def test_texts_that_describe_no_run(text, message):
    with pytest.raises(SuiteError) as raised:
        run_file.from_yaml(text)
    assert message in str(raised.value)
