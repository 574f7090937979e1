"""Query2Label agrees with its authors' code on weights under their names.

Their position code is computed in float32, so agreement is at 1e-6.
"""

import numpy as np
import pytest
import torch

from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.layers.transformer import sine_position
from mlbench_plugins.methods.query2label import Query2Label, from_authors
from tests.parity.fixtures import ARRAYS, FIXTURES, assert_agrees, normal, weights

NAMES = ["q2l_c6_e1d2", "q2l_c6_e0d2_sa"]
OPTIONS = (
    *("hidden_dim", "heads", "encoder_layers", "decoder_layers", "feedforward"),
    *("keep_first_self_attention", "keep_other_self_attention"),
)


def build(fixture, **options):
    sizes = FIXTURES[fixture]
    labels = known_context(np.eye(sizes["classes"]))
    options = {name: sizes[name] for name in OPTIONS} | options
    head = Query2Label((Level(sizes["feature_dim"], 32),), labels, **options).double()
    head.load_state_dict(from_authors(weights(fixture)))
    return head


def features(fixture):
    kind, name, shape = FIXTURES[fixture]["inputs"]["features"]
    assert kind == "normal"
    return (normal(name, shape),)


@pytest.mark.parametrize("fixture", NAMES)
def test_logits(fixture):
    assert_agrees(build(fixture).eval()(features(fixture)).logits, f"{fixture}/logits", 1e-6)
    without = build(fixture, dropout=0.0).train()
    assert_agrees(without(features(fixture)).logits, f"{fixture}/logits", 1e-6)


@pytest.mark.parametrize("fixture", NAMES)
def test_the_position_code(fixture):
    _, channels, rows, columns = ARRAYS[f"{fixture}/position"].shape
    code = sine_position(channels, rows, columns, like=torch.zeros(1, dtype=torch.float64))
    found = code.T.unflatten(1, (rows, columns))[None]
    assert_agrees(found, f"{fixture}/position", 1e-6)
