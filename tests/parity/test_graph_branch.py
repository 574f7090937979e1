"""The graph branch agrees with its authors' code, in float64, on weights under their names."""

import numpy as np
import pytest

from mlbench.contracts.made_up import known_context
from mlbench.types import Angles, Level
from mlbench_plugins.methods.graph_branch import GraphBranch, from_authors
from tests.parity.fixtures import FIXTURES, assert_agrees, normal, uniform, weights

NAMES = [name for name, fixture in FIXTURES.items() if fixture["method"] == "graph_branch"]
FIELDS = ("layer_type", "layers", "label_pooling", "last_sigmoid", "threshold", "rho")


def build(name):
    fixture = FIXTURES[name]
    count = fixture["classes"]
    # P(j | i) is n_ij / n_ii, so with a diagonal of ones the counts are the probabilities.
    probability = uniform("gcnbranch.conditional", (count, count))
    np.fill_diagonal(probability, 1.0)
    head = GraphBranch(
        (Level(fixture["feature_dim"], 32),),
        known_context(probability, normal("gcnbranch.word_features", (count, 300))),
        classifier=fixture["output"].split()[0],
        dropout=0.0,
        **{field: fixture[field] for field in FIELDS},
    ).double()
    if fixture["output"].startswith("cosine"):
        head.classifier.angles = Angles(scale=1.0)
    missing, strange = head.load_state_dict(from_authors(weights(name)), strict=False)
    assert not strange
    assert set(missing) == {"gate.adjacency", "gate.words"}
    return head, normal("gcnbranch.features", fixture["inputs"]["features"][2])


def test_there_are_fixtures_of_both_layers_and_both_outputs():
    assert len(NAMES) == 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_logits(name, training):
    head, features = build(name)
    assert_agrees(head.train(training)((features,)).logits, f"{name}/logits")


@pytest.mark.parametrize("name", NAMES)
def test_adjacency(name):
    assert_agrees(build(name)[0].gate.adjacency, f"{name}/adjacency")
