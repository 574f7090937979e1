"""Inputs and tolerances that fixture files describe in words."""

import numpy as np
import pytest

from mlbench.types import DataError
from mlbench_tools.weights.fixtures import Generator, Inputs, tolerance
from tests.parity import fixtures

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
