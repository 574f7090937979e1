"""Fixture files of other salts, widths and label counts, against references written in loops."""

import json

import numpy as np
import pytest

from mlbench_tools.weights.fixtures import read_fixtures
from mlbench_tools.weights.proving import prove
from tests.parity import loops

RULES = {"tolerance": "1e-9 relative to the largest expected value; 1e-7 for metrics"}


def csra(folder, salt, labels, channels, heads, lam):
    """A fixture file of these weights and inputs, and of what the loops make of them."""
    keys = [[f"multi_head.{i}.head.weight", [labels, channels, 1, 1]] for i in range(heads)]
    inputs = {"features": ["2*normal", "c.f", [3, channels, 3, 2]]}
    fields = {"method": "csra", "kind": "head", "classes": labels, "heads": heads, "lam": lam}
    fields |= {"inputs": inputs, "keys": keys}
    file = folder / "other.json"
    file.write_text(json.dumps({"salt": salt, "rules": RULES, "fixtures": {"c": fields}}))
    np.savez(file.with_suffix(".npz"), **{"c/nothing": np.zeros(1)})
    (fixture,) = read_fixtures(file)
    weights = {key: fixture.generator.weight(key, shape).numpy() for key, shape in keys}
    temperatures = {2: [1, None], 6: [1, 2, 3, 4, 5, None]}[heads]
    logits = loops.csra(weights, fixture.inputs()["features"], temperatures, lam)
    np.savez(file.with_suffix(".npz"), **{"c/logits": logits})
    return file


@pytest.mark.parametrize("numbers", [("salt", 4, 9, 6, 0.35), ("pepper", 13, 5, 2, 1.5)])
def test_the_loops_agree_and_a_small_change_of_what_is_expected_is_seen(tmp_path, numbers):
    file = csra(tmp_path, *numbers)
    (fixture,) = read_fixtures(file)
    result = prove(fixture)
    assert result.passed, result
    with np.load(file.with_suffix(".npz")) as arrays:
        changed = {name: arrays[name] * (1 + 1e-8) for name in arrays.files}
    np.savez(file.with_suffix(".npz"), **changed)
    (fixture,) = read_fixtures(file)
    result = prove(fixture)
    assert result.error is None and not any(array.passed for array in result.arrays)


def test_another_option_is_seen(tmp_path):
    file = csra(tmp_path, "salt", 4, 9, 6, 0.35)
    written = json.loads(file.read_text())
    written["fixtures"]["c"]["lam"] = 0.3500001
    file.write_text(json.dumps(written))
    (fixture,) = read_fixtures(file)
    assert not prove(fixture).passed
