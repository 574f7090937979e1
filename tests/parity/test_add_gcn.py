"""ADD-GCN agrees with its authors' code, in float64, on weights under their names."""

import numpy as np
import pytest
import torch

from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.methods.add_gcn import ADDGCN, from_authors
from tests.parity.fixtures import ARRAYS, FIXTURES, assert_agrees, normal, weights

SIZES = FIXTURES["addgcn_c6"]
COUNT = SIZES["classes"]


@pytest.fixture(scope="module")
def head():
    labels = known_context(np.eye(COUNT))
    head = ADDGCN((Level(2048, 32),), labels).double().eval()
    head.load_state_dict(from_authors(weights("addgcn_c6")))
    return head


def features():
    return (normal("addgcn.features", SIZES["inputs"]["features"][2]),)


def test_both_scores(head):
    pooled, graph = head.both_scores(features())
    assert_agrees(pooled, "addgcn_c6/sm")
    assert_agrees(graph, "addgcn_c6/sr")


def test_logits_are_their_mean(head):
    expected = torch.from_numpy((ARRAYS["addgcn_c6/sm"] + ARRAYS["addgcn_c6/sr"]) / 2)
    torch.testing.assert_close(head(features()).logits, expected, rtol=1e-9, atol=1e-9)
