"""SSGRL agrees with its authors' code, in float64, on weights under their names."""

import numpy as np
import pytest
import torch

from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.methods.ssgrl import SSGRL, from_authors
from tests.parity.fixtures import FIXTURES, assert_agrees, normal, uniform, weights


def build(fixture, **options):
    sizes = FIXTURES[fixture]
    count = sizes["classes"]
    # P(j | i) is n_ij / n_ii, so with a diagonal of ones the counts are the probabilities.
    probability = uniform("ssgrl.adjacency", (count, count))
    np.fill_diagonal(probability, 1.0)
    words = normal("ssgrl.word_features", (count, sizes["word_dim"]))
    head = SSGRL(
        (Level(sizes["feature_dim"], 32),),
        known_context(probability, words),
        output_dim=sizes["output_dim"],
        intermediary_dim=sizes["intermediary_dim"],
        time_steps=sizes["time_steps"],
        downsample=1,
        **options,
    ).double()
    head.adjacency.copy_(torch.from_numpy(probability).fill_diagonal_(0))
    buffers = {name: head.get_buffer(name) for name in ("adjacency", "words.vectors")}
    head.load_state_dict(from_authors(weights(fixture)) | buffers)
    features = normal("ssgrl.features", sizes["inputs"]["features"][2])
    return head, features


@pytest.mark.parametrize("fixture", ["ssgrl_c5_d32", "ssgrl_c11_d40"])
@pytest.mark.parametrize(("slip", "variant"), [(True, "logits_code"), (False, "logits_paper")])
def test_logits(fixture, slip, variant):
    head, features = build(fixture, reset_uses_update_weights=slip)
    assert_agrees(head((features,)).logits, f"{fixture}/{variant}")
    with torch.no_grad():
        assert_agrees(head.eval()((features,)).logits, f"{fixture}/{variant}")


@pytest.mark.parametrize("fixture", ["ssgrl_c5_d32", "ssgrl_c11_d40"])
def test_decoupled_features(fixture):
    head, features = build(fixture)
    assert_agrees(head.decoupling(features, head.words()), f"{fixture}/semantic")
