"""Fixture files of other salts, widths and label counts, against references written in loops."""

import json

import numpy as np
import pytest

from mlbench_tools.weights.fixtures import read_fixtures
from mlbench_tools.weights.proving import prove
from tests.parity import loops
from tests.parity.fixtures import ssgrl_shapes

RULES = {"tolerance": "1e-9 relative to the largest expected value; 1e-7 for metrics"}


def write(folder, salt, name, fields, expected):
    """A fixture file of one fixture; ``expected`` takes its weights and inputs."""
    file = folder / "other.json"
    file.write_text(json.dumps({"salt": salt, "rules": RULES, "fixtures": {name: fields}}))
    np.savez(file.with_suffix(".npz"), **{f"{name}/nothing": np.zeros(1)})
    (fixture,) = read_fixtures(file)
    weights = {k: fixture.generator.weight(k, s).numpy() for k, s in fields.get("keys", ())}
    arrays = expected(weights, fixture.inputs())
    np.savez(file.with_suffix(".npz"), **{f"{name}/{k}": v for k, v in arrays.items()})
    return file


def ssgrl(folder, salt, labels, channels, words, joint, out, steps):
    keys = [*ssgrl_shapes(labels, channels, words, joint, out).items()]
    inputs = {
        "features": ["normal", "o.features", [2, channels, 2, 3]],
        "word_features": ["0.5*normal", "o.words", [labels, words]],
        "adjacency": ["uniform, diagonal set to 0", "o.adjacency", [labels, labels]],
    }
    fields = {"method": "ssgrl", "kind": "head", "classes": labels, "time_steps": steps}

    def expected(w, made):
        given = (w, made["features"], made["word_features"], made["adjacency"], steps)
        return {
            "logits_code": loops.ssgrl(*given, False),
            "logits_paper": loops.ssgrl(*given, True),
        }

    return write(folder, salt, "s", {**fields, "inputs": inputs, "keys": keys}, expected)


def csra(folder, salt, labels, channels, heads, lam):
    keys = [[f"multi_head.{i}.head.weight", [labels, channels, 1, 1]] for i in range(heads)]
    inputs = {"features": ["2*normal", "c.f", [3, channels, 3, 2]]}
    fields = {"method": "csra", "kind": "head", "classes": labels, "heads": heads, "lam": lam}
    temperatures = {1: [1], 2: [1, None], 6: [1, 2, 3, 4, 5, None]}[heads]

    def expected(w, made):
        return {"logits": loops.csra(w, made["features"], temperatures, lam)}

    return write(folder, salt, "c", {**fields, "inputs": inputs, "keys": keys}, expected)


def asl(folder, salt, shape, gamma_neg, gamma_pos, clip):
    inputs = {"logits": ["3*normal", "l.x", shape], "targets": ["uniform<0.4", "l.y", shape]}
    fields = {"method": "asl", "kind": "loss", "reduction": "sum", "detach_focal_weight": False}
    fields |= {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip, "inputs": inputs}

    def expected(_, made):
        return {
            "loss": np.array(loops.asl(made["logits"], made["targets"], gamma_neg, gamma_pos, clip))
        }

    return write(folder, salt, "l", fields, expected)


CASES = [
    (ssgrl, ("v9:", 3, 6, 5, 8, 4, 2)),
    (ssgrl, ("another salt", 7, 10, 12, 9, 3, 1)),
    (csra, ("salt", 4, 9, 6, 0.35)),
    (csra, ("pepper", 13, 5, 2, 1.5)),
    (asl, ("q", [5, 3], 3.0, 0.5, 0.2)),
    (asl, ("r", [2, 17], 1.5, 2.0, 0.0)),
]


@pytest.mark.parametrize(("make", "numbers"), CASES)
def test_the_loops_agree(tmp_path, make, numbers):
    (fixture,) = read_fixtures(make(tmp_path, *numbers))
    result = prove(fixture)
    assert result.passed, result


@pytest.mark.parametrize("make", [ssgrl, csra, asl])
def test_a_small_change_of_what_is_expected_is_seen(tmp_path, make):
    file = make(tmp_path, *next(numbers for one, numbers in CASES if one is make))
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
