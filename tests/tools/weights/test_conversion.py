"""Releases of all methods: labels in another order, and names that nobody uses."""

import pytest
import torch

from mlbench import registry
from mlbench.contracts.made_up import PYRAMID, features, made_up_context, reordered
from mlbench.types import PluginError, WeightsError
from mlbench_tools.weights.conversion import (
    convert,
    count_labels,
    fill,
    recognise,
    releases,
    reorder,
)
from mlbench_tools.weights.importing import graph_state

METHODS = sorted(plugin.name for plugin in registry.plugins("recipe") if plugin.load().released)
SMALL = {
    "query2label": {"hidden_dim": 16, "feedforward": 12},
    "ml_decoder": {"embedding_dim": 16, "feedforward": 12},
    "transformer_head": {"embedding_dim": 16, "feedforward": 12},
}


@pytest.mark.parametrize("method", METHODS)
def test_labels_in_another_order_permute_the_logits(method):
    """A head that takes the reordered weights gives the same logits, in the new order."""
    order = [3, 0, 4, 1, 2]
    labels = made_up_context(len(order))
    factory = registry.find("head", registry.find("recipe", method).load().settings.head).load()
    options = SMALL.get(method, {})
    for released in releases(method):
        torch.manual_seed(1)
        head = factory(PYRAMID, labels, **options).eval()
        torch.manual_seed(2)
        other = factory(PYRAMID, reordered(labels, order), **options).eval()
        state = reorder(released, head.state_dict(), order)
        counted, _ = count_labels(released, state, "it")
        assert counted == len(order)
        fill(other, state, "it")
        maps = features(PYRAMID)
        with torch.no_grad():
            ours, theirs = other(maps).logits, head(maps).logits
        assert (theirs - theirs.mean(dim=1, keepdim=True)).abs().max() > 1e-5
        torch.testing.assert_close(ours, theirs[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_needs_are_buffers_that_it_has(method):
    recipe = registry.find("recipe", method).load()
    factory = registry.find("head", recipe.settings.head).load()
    head = factory(PYRAMID, made_up_context(5), **SMALL.get(method, {}))
    buffers = {name for name, _ in head.named_buffers()}
    known = registry.options(factory)
    for released in releases(method):
        assert {name for names in released.needs.values() for name in names} <= buffers
        graph = graph_state(released, torch.rand(5, 5), {**known, **recipe.settings.head_options})
        assert set(graph) == set(released.needs.get("graph", ()))


def test_queries_that_labels_share_stay_where_they_are():
    (released,) = releases("ml_decoder")
    factory = registry.find("head", "ml_decoder").load()
    head = factory(PYRAMID, made_up_context(6), groups=2, **SMALL["ml_decoder"])
    same = reorder(released, head.state_dict(), range(6))
    assert torch.equal(same["classifier.weight"], head.state_dict()["classifier.weight"])
    with pytest.raises(WeightsError, match="6 labels share 2 queries"):
        reorder(released, head.state_dict(), [1, 0, 2, 3, 4, 5])


def csra_state():
    return {
        "conv1.weight": torch.zeros(64, 3, 7, 7),
        "layer4.0.conv1.weight": torch.zeros(1),
        "classifier.multi_head.0.head.weight": torch.zeros(5, 8, 1, 1),
        "classifier.multi_head.1.head.weight": torch.zeros(5, 8, 1, 1),
    }


def test_every_name_is_used_unused_or_refused():
    (released,) = releases("csra")
    state = csra_state() | {"fc.weight": torch.zeros(1)}
    converted = convert(released, state, "x.pth")
    assert converted.unused == ("fc.weight",)
    assert converted.options == {"heads": 2} and converted.head["weight"].shape == (2, 5, 8)
    with pytest.raises(WeightsError, match=r"1 names have no place in .*: strange\.weight"):
        convert(released, state | {"strange.weight": torch.zeros(1)}, "x.pth")


def test_a_file_of_another_method_is_refused_with_that_methods_name():
    assert recognise("csra", csra_state(), "x.pth")[0] is releases("csra")[0]
    with pytest.raises(WeightsError, match=r"x\.pth: is no checkpoint of ssgrl.*one of csra"):
        recognise("ssgrl", csra_state(), "x.pth")
    with pytest.raises(PluginError, match=r"no published files of gmp are known; .* csra"):
        recognise("gmp", csra_state(), "x.pth")


def test_what_does_not_fit_is_named():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = module.state_dict()
    del state["1.num_batches_tracked"]
    fill(module, state, "x.pth")
    del state["0.bias"]
    state |= {"0.weight": torch.zeros(3, 5), "more": torch.zeros(1)}
    with pytest.raises(WeightsError) as error:
        fill(module, state, "x.pth")
    for said in ("1 missing: 0.bias", "1 unexpected: more", "0.weight [3, 5] instead of [3, 2]"):
        assert said in str(error.value)
