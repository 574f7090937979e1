"""What the cards say of a head's cost."""

import pytest

from mlbench import registry
from mlbench.types import PluginError, Settings
from mlbench_tools.costs.head_costs import head_cost


def test_a_linear_layer_costs_its_weights():
    cost = head_cost(Settings(head="gap", backbone="resnet50"))
    assert cost.parameters == pytest.approx((2048 + 1) * 80 / 1e6)
    assert cost.gmacs == pytest.approx(2048 * 80 / 1e9)


def test_the_head_of_ssgrl_is_as_large_as_its_paper_s():
    # 92.27 M with 80 labels, of which ResNet-101 without its classifier has 42.50 M.
    recipe = registry.find("recipe", "ssgrl").load()
    assert head_cost(recipe.settings).parameters == pytest.approx(92.27 - 42.50, abs=0.02)


def test_scores_of_the_literature_have_a_decimal_at_least(cli):
    shown = cli("show", "ml_gcn").out
    assert "coco mAP 83.0 (" in shown and "coco CF1 78.0 (" in shown


def test_what_cannot_be_served_says_so():
    with pytest.raises(PluginError, match="billion weights"):
        head_cost(Settings(head="msrn", backbone="resnet50"), labels=500)
