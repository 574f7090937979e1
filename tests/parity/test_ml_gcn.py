"""ML-GCN agrees with its authors' code, in float64, on weights under their names."""

import numpy as np
import pytest
import torch

from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.layers.label_graph import label_graph
from mlbench_plugins.methods.ml_gcn import MLGCN, from_authors
from tests.parity.fixtures import ARRAYS, FIXTURES, assert_agrees, normal, uniform, weights

SIZES = FIXTURES["mlgcn_c6"]
COUNT = SIZES["classes"]


def graph():
    """The fixture's own: unlike real counts it has labels that occur with themselves."""
    together = np.round(50 * uniform("mlgcn.counts", (COUNT, COUNT)))
    alone = together.max(0) + 50 + np.arange(COUNT)
    probability = torch.from_numpy(together / alone[:, None])
    return label_graph("reweighted", probability, SIZES["threshold"], SIZES["p"])


@pytest.fixture
def head():
    words = normal("mlgcn.word_features", (COUNT, 300))
    head = MLGCN((Level(2048, 32),), known_context(np.eye(COUNT), words)).double()
    buffers = {"class_weights.words": words, "class_weights.adjacency": graph()}
    head.load_state_dict(buffers | from_authors(weights("mlgcn_c6")))
    return head


def logits(head):
    return head((normal("mlgcn.features", SIZES["inputs"]["features"][2]),)).logits


def test_adjacency():
    assert_agrees(graph(), "mlgcn_c6/adjacency")


def test_logits(head):
    assert_agrees(logits(head), "mlgcn_c6/logits")


def test_a_checkpoint_brings_its_own_graph(head):
    state = weights("mlgcn_c6") | {"A": torch.from_numpy(ARRAYS["mlgcn_c6/A"])}
    head.class_weights.adjacency.zero_()
    head.load_state_dict(from_authors(state), strict=False)
    assert_agrees(head.class_weights.adjacency, "mlgcn_c6/adjacency")
    assert_agrees(logits(head), "mlgcn_c6/logits")
