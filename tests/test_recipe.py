"""The recipe of a run: a text that says all of it, to a person and to mlbench."""

from pathlib import Path

import pytest
import yaml

from mlbench import recipe
from mlbench.store import Store
from mlbench.types import SuiteError
from tests.store.made import made_record

RECORDS = Store(Path(__file__).parent.parent / "results").records()


def test_every_committed_run_is_told_without_loss():
    assert len(RECORDS) > 50
    for record in RECORDS:
        told = recipe.read(recipe.text(record))
        assert told == recipe.of(record)
        assert told.spec.run_id == told.run_id == record.run_id


def test_a_name_that_yaml_has_a_meaning_for_stays_a_name():
    odd = {"spec": {"labels": ("yes", "1e3", "null", "# é", "a: b"), "words": "random"}}
    record = made_record(**odd, settings={"head_options": {"width": 1e-5, "which": "off"}})
    assert recipe.read(recipe.text(record)) == recipe.of(record)


def test_what_a_reader_sees_first():
    record = made_record(command="mlbench run\n--plugins gap # all of them")
    first, second, third, *rest = recipe.text(record).splitlines()
    assert first == "# ssgrl on coco-mini, probe track: mAP 50.00"
    assert second == "# made by: mlbench run --plugins gap # all of them"
    assert third == "# repeat it with: mlbench repeat RECIPE.yaml --results repeated"
    assert rest[0] == f"run_id: {record.run_id}"


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"command": "mlbench run --plugins gap --data=x"}, "--data DIR"),
        ({"command": "mlbench run --plugins gap --data x"}, "--data DIR"),
        ({"command": "mlbench run --plugins gap --datasets x"}, ""),
        ({"settings": {"weights": "sha256:ab"}}, "--weights FILE"),
        ({"spec": {"words": "sha256:ab"}}, "--words FILE"),
        ({"environment": {"processes": 4}}, "--gpus 4"),
        ({"environment": {"processes": 1}}, ""),
    ],
)
def test_the_command_asks_for_what_the_run_had(fields, more):
    said = recipe.command(made_record(**fields), "mine.yaml")
    assert said == f"mlbench repeat mine.yaml --results repeated {more}".strip()


def test_a_checkpoint_that_was_scored_is_scored_again_by_its_own_command():
    record = made_record(spec={"checkpoint": "sha256:ab"}, command="mlbench evaluate x")
    assert recipe.command(record) == "mlbench evaluate x"


def test_a_spec_alone_is_a_recipe():
    plain = RECORDS[0].spec.model_dump(mode="json", exclude_defaults=True)
    told = recipe.read(yaml.safe_dump(plain))
    assert told.spec == RECORDS[0].spec and told.run_id is None and told.environment is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("settings: {", "is no YAML"),
        ("- a\n- b", "describes no run (it is no mapping"),
        ("method: gap", "describes no run"),
        ("[" * 1000, "nested too deeply"),
    ],
)
def test_what_tells_no_run(text, said):
    with pytest.raises(SuiteError) as told:
        recipe.read(text)
    assert said in str(told.value)
