"""Fixture files: what they say in words, and files of other salts, widths and label counts.

The expected numbers of the latter are of references written in loops.
"""

import json
import math

import numpy as np
import pytest

from mlbench.types import DataError
from mlbench_tools.weights.fixtures import Generator, Inputs, read_fixtures, tolerance
from mlbench_tools.weights.proving import prove
from tests.parity import fixtures, loops
from tests.plugins.losses import test_focusing

GENERATOR = Generator("v1:")


def inputs(**written):
    return Inputs(written, GENERATOR, labels=4)


def test_weights_follow_the_written_rule():
    for key, shape in (("a.weight", [3]), ("a.running_var", [3]), ("a.bias", [2]), ("b", [2, 5])):
        assert np.array_equal(GENERATOR.weight(key, shape), fixtures.weight(key, shape, "v1:"))
    assert GENERATOR.weight("bn.num_batches_tracked", []) == 0


def test_descriptions_become_numbers():
    made = inputs(
        a=["2*normal + 1", "x.a", [3, 3]],
        b=["uniform*2/4, diagonal set to 0", "x.b", [4, 4]],
        c=["uniform<0.5", "x.targets", [4]],
        d=["0.9*tanh(normal) - 1.5*targets", "x.d", [4]],
        e="b.max(0)+50+arange(C)",
    )
    normal = GENERATOR.normal
    np.testing.assert_array_equal(made["a"], 2 * normal("x.a", [3, 3]) + 1)
    uniform = GENERATOR.uniform("x.b", [4, 4]) / 2
    np.fill_diagonal(uniform, 0)
    np.testing.assert_array_equal(made["b"], uniform)
    assert made["c"].dtype == bool
    np.testing.assert_array_equal(made["d"], 0.9 * np.tanh(normal("x.d", [4])) - 1.5 * made["c"])
    np.testing.assert_array_equal(made["e"], uniform.max(0) + 50 + np.arange(4))


@pytest.mark.parametrize(
    "description",
    ["__import__('os')", "normal.__class__", "poisson", "normal if 1 else 2", "normal +", "'a'"],
)
def test_what_is_not_a_formula_is_refused(description):
    with pytest.raises(DataError, match="is not understood"):
        inputs(a=[description, "x.a", [2]])["a"]


def test_a_malformed_input_is_refused():
    with pytest.raises(DataError, match=r"instead of \[formula"):
        inputs(a=["normal", 3])["a"]


def test_tolerances():
    text = {
        "tolerance": "1e-9 relative to x, float64; 1e-6 for query2label (why) and 1e-7 for metrics"
    }
    assert tolerance(text, {"method": "ssgrl", "kind": "head"}) == 1e-9
    assert tolerance(text, {"method": "query2label", "kind": "head"}) == 1e-6
    assert tolerance(text, {"method": "m", "kind": "metrics"}) == 1e-7
    assert tolerance(text, {"method": "m", "tolerance": 1e-3}) == 1e-3
    assert tolerance({"tolerance": "2.5e-8 of all"}, {}) == 2.5e-8
    assert tolerance({}, {}) == 1e-9


RULES = {"tolerance": "1e-9 relative to the largest expected value; 1e-7 for metrics"}


def write(folder, salt, name, fields, expected):
    """A fixture file of one fixture; ``expected`` takes its weights and inputs."""
    file = folder / "other.json"
    file.write_text(json.dumps({"salt": salt, "rules": RULES, "fixtures": {name: fields}}))
    np.savez(file.with_suffix(".npz"), **{f"{name}/nothing": np.zeros(1)})
    (fixture,) = read_fixtures(file)
    weights = {k: fixture.generator.weight(k, s) for k, s in fields.get("keys", ())}
    arrays = expected(weights, fixture.inputs())
    np.savez(file.with_suffix(".npz"), **{f"{name}/{k}": v for k, v in arrays.items()})
    return file


def ssgrl(folder, salt, labels, channels, words, joint, out, steps):
    keys = [*fixtures.ssgrl_shapes(labels, channels, words, joint, out).items()]
    inputs = {
        "features": ["normal", "o.features", [2, channels, 2, 3]],
        "word_features": ["0.5*normal", "o.words", [labels, words]],
        "adjacency": ["uniform, diagonal set to 0", "o.adjacency", [labels, labels]],
    }
    fields = {"method": "ssgrl", "kind": "head", "classes": labels, "time_steps": steps}

    def expected(w, made):
        given = [made.tensor(name) for name in inputs]
        forms = {"logits_code": False, "logits_paper": True}
        return {name: loops.ssgrl(w, *given, steps, own) for name, own in forms.items()}

    return write(folder, salt, "s", {**fields, "inputs": inputs, "keys": keys}, expected)


def csra(folder, salt, labels, channels, heads, lam):
    keys = [[f"multi_head.{i}.head.weight", [labels, channels, 1, 1]] for i in range(heads)]
    inputs = {"features": ["2*normal", "c.f", [3, channels, 3, 2]]}
    fields = {"method": "csra", "kind": "head", "classes": labels, "heads": heads, "lam": lam}
    temperatures = {1: [1], 2: [1, math.inf], 6: [1, 2, 3, 4, 5, math.inf]}[heads]

    def expected(w, made):
        return {"logits": loops.csra(w, made.tensor("features"), temperatures, lam)}

    return write(folder, salt, "c", {**fields, "inputs": inputs, "keys": keys}, expected)


def asl(folder, salt, shape, gamma_neg, gamma_pos, clip):
    inputs = {"logits": ["3*normal", "l.x", shape], "targets": ["uniform<0.4", "l.y", shape]}
    fields = {"method": "asl", "kind": "loss", "reduction": "sum", "detach_focal_weight": False}
    fields |= {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip, "inputs": inputs}

    def expected(_, made):
        pairs = zip(made["logits"].ravel(), made["targets"].ravel(), strict=True)
        terms = [test_focusing.asl(*pair, gamma_neg, gamma_pos, clip, False) for pair in pairs]
        return {"loss": np.array(sum(terms))}

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
