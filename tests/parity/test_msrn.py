"""MSRN agrees with its authors' code, in float64, on weights under their names."""

import numpy as np
import pytest
import torch

from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.layers.label_graph import label_graph
from mlbench_plugins.methods.msrn import MSRN, from_authors
from tests.parity.fixtures import ARRAYS, FIXTURES, assert_agrees, normal, uniform, weights

SIZES = FIXTURES["msrn_c6"]
COUNT = SIZES["classes"]
SPEC = (Level(512, 8), Level(1024, 16), Level(2048, 32))


def counts():
    together = np.round(50 * uniform("msrn.counts", (COUNT, COUNT)))
    return together, together.max(0) + 50 + np.arange(COUNT)


@pytest.fixture(scope="module")
def head():
    together, alone = counts()
    cooccurrence = together.copy()
    np.fill_diagonal(cooccurrence, alone)
    head = MSRN(
        SPEC,
        known_context(cooccurrence, normal("msrn.word_features", (COUNT, 300))),
        groups=SIZES["groups"],
        threshold=SIZES["threshold"],
        downsample=1,
        buffers=False,
    ).double()
    buffers = {name: head.get_buffer(name) for name in ("branch.edges", "branch.words")}
    head.load_state_dict(from_authors(weights("msrn_c6")) | buffers)
    return head


def test_adjacency():
    together, alone = counts()
    probability = torch.from_numpy(together / alone[:, None])
    found = label_graph("reweighted", probability, SIZES["threshold"], SIZES["p"])
    assert_agrees(found, "msrn_c6/adjacency")


def test_the_head_has_the_edges_of_that_graph(head):
    expected = ARRAYS["msrn_c6/adjacency"] > 0
    np.testing.assert_array_equal(head.branch.edges.numpy(), expected)


def test_label_branch(head):
    branch = head.branch.nodes()
    assert_agrees(branch.labels, "msrn_c6/label_embedding")
    assert_agrees(branch.groups, "msrn_c6/group_embedding")
    assert_agrees(branch.assignment, "msrn_c6/assignment")


def test_group_loss(head):
    branch = head.branch.nodes()
    # The published code adds the distances up in a float32 number, and so does this test.
    total = np.float32(0)
    for label, group in enumerate(branch.assignment.argmax(dim=1)):
        total += np.float32((branch.labels[label] - branch.groups[group]).norm().item())
    expected = float(ARRAYS["msrn_c6/group_loss"])
    assert total * np.float32(1e-4) == pytest.approx(expected, rel=1e-9)
    assert 1e-4 * branch.group_loss().item() == pytest.approx(expected, rel=3e-7)


@pytest.mark.parametrize("gradients", [True, False])
def test_logits(head, gradients):
    features = tuple(
        normal(f"msrn.features{i}", SIZES["inputs"][f"features{i}"][2]) for i in range(3)
    )
    with torch.set_grad_enabled(gradients):
        output = head(features)
    assert_agrees(output.logits, "msrn_c6/logits")
    assert output.aux["group"].item() == pytest.approx(ARRAYS["msrn_c6/group_loss"], rel=3e-7)


def test_every_key_of_the_authors_has_a_place():
    shapes = {"resnet_101.conv_buffer0.weight": (1,), "resnet_101.layer1.0.conv1.weight": (1,)}
    for i, channels in ((1, 512), (2, 1024)):
        shapes[f"resnet_101.conv_buffer{i}.weight"] = (channels, channels, 1, 1)
        shapes[f"resnet_101.conv_buffer{i}.bias"] = (channels,)
    authors = weights("msrn_c6") | {key: torch.zeros(shape) for key, shape in shapes.items()}
    labels = known_context(np.eye(COUNT), np.zeros((COUNT, 300), np.float32))
    for classifier in ("mlp", "elementwise"):
        made = MSRN(SPEC, labels, groups=2, classifier=classifier)
        wanted = {name: p.shape for name, p in made.named_parameters()}
        found = {k: v.shape for k, v in from_authors(authors, classifier).items()}
        assert found == wanted
