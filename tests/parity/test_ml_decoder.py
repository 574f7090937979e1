"""ML-Decoder agrees with its authors' code, in float64, on weights under their names."""

import numpy as np
import pytest

from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.layers.decoder import decoder_from_authors
from mlbench_plugins.methods.ml_decoder import MLDecoder
from mlbench_plugins.methods.transformer_head import TransformerHead
from tests.parity.fixtures import FIXTURES, assert_agrees, normal, weights

NAMES = ["mldecoder_c12_g-1", "mldecoder_c26_g10"]
OPTIONS = ("groups", "embedding_dim", "heads", "feedforward")


def build(fixture, make=MLDecoder, **options):
    sizes = FIXTURES[fixture]
    labels = known_context(np.eye(sizes["classes"]))
    options = {name: sizes[name] for name in OPTIONS} | options
    return make((Level(sizes["feature_dim"], 32),), labels, **options).double()


def features(fixture):
    kind, name, shape = FIXTURES[fixture]["inputs"]["features"]
    assert kind == "normal"
    return (normal(name, shape),)


@pytest.mark.parametrize("fixture", NAMES)
def test_logits(fixture):
    head = build(fixture)
    head.load_state_dict(decoder_from_authors(weights(fixture)))
    assert_agrees(head.eval()(features(fixture)).logits, f"{fixture}/logits")
    without = build(fixture, dropout=0.0)
    without.load_state_dict(decoder_from_authors(weights(fixture)))
    assert_agrees(without.train()(features(fixture)).logits, f"{fixture}/logits")


@pytest.mark.parametrize("fixture", NAMES)
def test_the_linear_transformer_head_is_ml_decoder(fixture):
    head = build(fixture, TransformerHead, classifier="linear")
    head.load_state_dict(decoder_from_authors(weights(fixture)))
    assert_agrees(head.eval()(features(fixture)).logits, f"{fixture}/logits")
