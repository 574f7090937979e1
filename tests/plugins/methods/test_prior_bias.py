"""Heads that can start at the prior do, and refuse where they cannot."""

import numpy as np
import pytest
import torch

from mlbench import registry
from mlbench.contracts.made_up import PYRAMID, features
from mlbench.types import LabelContext, PluginError

COUNTS = np.float32([[50, 0, 0], [0, 20, 0], [0, 0, 0]])
LABELS = LabelContext(("a", "b", "never"), COUNTS, np.ones((3, 4), np.float32), 100)
HEADS = [
    plugin.name
    for plugin in registry.plugins("head")
    if "prior_bias" in registry.options(plugin.load(), ("spec", "labels"))
]


def made(name, **options):
    return registry.find("head", name).load()(PYRAMID, LABELS, prior_bias=True, **options)


@pytest.mark.parametrize("name", HEADS)
def test_where_weights_are_zero_the_logits_are_the_prior(name):
    known = registry.options(registry.find("head", name).load(), ("spec", "labels"))
    head = made(name, **({"classifier": "linear"} if known.get("classifier") == "cosine" else {}))
    for key, value in head.named_parameters():
        if key.startswith("classifier") and key.endswith("weight"):
            value.data.zero_()
    with torch.no_grad():
        found = head.eval()(features(PYRAMID)).logits.sigmoid()
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.2, 1e-3]] * 2))


@pytest.mark.parametrize("name", [name for name in HEADS if name != "msrn"])
def test_a_cosine_has_no_prior(name):
    with pytest.raises(PluginError, match="no bias of logits to start at the prior"):
        made(name, classifier="cosine")


def test_labels_that_share_a_classifier_have_no_prior():
    with pytest.raises(PluginError, match="leave out prior_bias"):
        made("ml_decoder", queries="words")
