"""Average, maximum and CSRA's attention against their formulas, and what their heads promise."""

import math

import pytest
import torch

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles, Level
from mlbench_plugins.layers import numerics
from mlbench_plugins.methods.csra import CSRA, TEMPERATURES
from mlbench_plugins.methods.pooling import GAP, GMP
from tests.plugins.methods.formulas import assert_follows, macs, pixels

SPEC = (Level(4, 16), Level(7, 32))


@pytest.mark.parametrize(("head", "pool"), [(GAP, torch.mean), (GMP, torch.amax)])
def test_pool_the_deepest_map_then_a_linear_layer(head, pool):
    made = head(SPEC, made_up_context(3))
    x = torch.randn(2, 7, 3, 5)
    logits = made((torch.randn(2, 4, 6, 10), x)).logits
    layer = made.classifier
    torch.testing.assert_close(logits, pool(x, (2, 3)) @ layer.weight.T + layer.bias)


@pytest.mark.parametrize("head", [GAP, GMP])
def test_the_cosine_classifier_gives_scaled_cosines(head):
    made = head(SPEC, made_up_context(3), classifier="cosine")
    x = torch.randn(8, 7, 3, 5)
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


def by_loops(head, x_BDHW):
    """One image, one label and one head at a time."""
    rows = []
    for image in x_BDHW:
        row = []
        for c in range(head.weight.shape[1]):
            total = 0
            for weight, temperature in zip(head.weight[:, c], head.temperatures, strict=True):
                scores = [(weight * f).sum() / weight.square().sum().sqrt() for f in pixels(image)]
                if temperature == math.inf:
                    attended = max(scores)
                else:
                    powers = [(temperature * s).exp() for s in scores]
                    attended = sum(p * s for p, s in zip(powers, scores, strict=True)) / sum(powers)
                total = total + sum(scores) / len(scores) + head.lam * attended
            row.append(total)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("elements", [numerics.CPU_ELEMENTS, 80, 1])  # all heads a product, 2 or 1
@pytest.mark.parametrize(("heads", "lam"), [(1, 0.1), (2, 0.3), (4, 0.5), (6, 0.4), (8, 1.0)])
def test_forward_and_gradients_are_those_of_the_formulas(monkeypatch, heads, lam, elements):
    monkeypatch.setattr(numerics, "CPU_ELEMENTS", elements)
    torch.manual_seed(heads)
    head = CSRA(SPEC, made_up_context(3), heads=heads, lam=lam).double()
    assert_follows(head, by_loops, torch.randn(2, 7, 2, 3, dtype=torch.float64))


def test_temperatures_rise_and_more_than_one_head_ends_with_the_maximum():
    for heads, temperatures in TEMPERATURES.items():
        assert len(temperatures) == heads
        assert list(temperatures) == sorted(set(temperatures))
        assert (temperatures[-1] == math.inf) == (heads > 1)


def test_flop_counters_see_scores_and_attention():
    found = macs(CSRA(SPEC, made_up_context(3), heads=4), torch.randn(2, 7, 2, 5))
    scores, attention = 4 * 3 * 7 * 10, 3 * 3 * 10
    assert found == 2 * (scores + attention)
