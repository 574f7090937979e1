"""CSRA agrees with its authors' code, in float64, on weights under their names."""

import numpy as np
import pytest
import torch

from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.methods.csra import CSRA, from_authors
from tests.parity.fixtures import FIXTURES, assert_agrees, normal, weights

NAMES = ["csra_h1_c6", "csra_h4_c6"]


@pytest.mark.parametrize("fixture", NAMES)
def test_logits(fixture):
    sizes = FIXTURES[fixture]
    spec = (Level(sizes["feature_dim"], 32),)
    head = CSRA(
        spec, known_context(np.eye(sizes["classes"])), heads=sizes["heads"], lam=sizes["lam"]
    ).double()
    head.load_state_dict(from_authors(weights(fixture)))
    features = normal("csra.features", sizes["inputs"]["features"][2])
    assert_agrees(head((features,)).logits, f"{fixture}/logits")


def test_heads_stack_in_their_order():
    authors = weights("csra_h4_c6")
    state = from_authors(dict(reversed(authors.items())))
    for i, value in enumerate(authors.values()):
        assert torch.equal(state["weight"][i], value[:, :, 0, 0])
