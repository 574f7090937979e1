"""The baselines are what their names say."""

import pytest
import torch

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles, Level
from mlbench_plugins.methods.pooling import GAP, GMP

SPEC = (Level(4, 16), Level(6, 32))


@pytest.mark.parametrize(("head", "pool"), [(GAP, torch.mean), (GMP, torch.amax)])
def test_pool_the_deepest_map_then_a_linear_layer(head, pool):
    made = head(SPEC, made_up_context(3))
    x = torch.randn(2, 6, 3, 5)
    logits = made((torch.randn(2, 4, 6, 10), x)).logits
    layer = made.classifier
    torch.testing.assert_close(logits, pool(x, (2, 3)) @ layer.weight.T + layer.bias)


@pytest.mark.parametrize("head", [GAP, GMP])
def test_the_cosine_classifier_gives_scaled_cosines(head):
    made = head(SPEC, made_up_context(3), classifier="cosine")
    x = torch.randn(8, 6, 3, 5)
    maps = (torch.randn(8, 4, 6, 10), x)
    cosines = made(maps).logits / made.classifier.angles.scale
    assert cosines.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(made((maps[0], 7 * x)).logits, 23 * cosines)
    made.classifier.weight.data *= 3
    torch.testing.assert_close(made(maps).logits, 23 * cosines)
    made.classifier.angles = Angles(scale=10.0, exponent=2.0)
    torch.testing.assert_close(made(maps).logits, 10 * (2 * ((cosines + 1) / 2) ** 2 - 1))


def test_directions_start_at_length_one():
    weight = GAP(SPEC, made_up_context(3), classifier="cosine").classifier.weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3))
