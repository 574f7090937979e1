"""ASL and AAM agree with the published losses in value and gradient, in float64."""

import pytest
import torch

from mlbench.contracts.made_up import made_up_context
from mlbench_plugins.losses.aam import AAM
from mlbench_plugins.losses.asl import ASL
from tests.parity.fixtures import FIXTURES, assert_agrees, normal, uniform

SHAPE = (8, 12)
NOT_OPTIONS = {"method", "kind", "inputs", "eps"}


def made(factory, fixture, **options):
    names = getattr(factory, "fixture_names", {})
    fields = {names.get(k, k): v for k, v in FIXTURES[fixture].items() if k not in NOT_OPTIONS}
    return factory(made_up_context(SHAPE[1]), **fields, **options)


def assert_value_and_gradient_agree(fixture, loss, inputs, scale, salt):
    targets = torch.from_numpy(uniform(f"{salt}.targets", SHAPE) < 0.3).to(torch.int8)
    value = loss(scale * inputs.requires_grad_(), targets)
    assert_agrees(value, f"{fixture}/loss")
    assert_agrees(torch.autograd.grad(value, inputs)[0], f"{fixture}/grad")


@pytest.mark.parametrize("fixture", [f"asl_{i}" for i in range(5)])
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_asl(fixture, eps):
    loss = made(ASL, fixture, eps=eps)
    assert_value_and_gradient_agree(fixture, loss, 4 * normal("asl.logits", SHAPE), 1, "asl")


@pytest.mark.parametrize("fixture", [f"aam_{i}" for i in range(4)])
def test_aam(fixture):
    loss, cosines = made(AAM, fixture), 0.9 * normal("am.cosines", SHAPE).tanh()
    assert_value_and_gradient_agree(fixture, loss, cosines, loss.angles.scale, "am")
