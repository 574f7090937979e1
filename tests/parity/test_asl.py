"""ASL agrees with the published loss in value and gradient, in float64."""

import pytest
import torch

from mlbench_plugins.losses.asl import ASL
from tests.parity.fixtures import FIXTURES, assert_agrees, normal, uniform

SHAPE = (8, 12)


@pytest.mark.parametrize("fixture", [f"asl_{i}" for i in range(5)])
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_value_and_gradient(fixture, eps, labels):
    written = FIXTURES[fixture]
    loss = ASL(
        labels,
        gamma_neg=written["gamma_neg"],
        gamma_pos=written["gamma_pos"],
        clip=written["clip"],
        detach_focus=written["detach_focal_weight"],
        eps=eps,
        reduction=written["reduction"],
    )
    logits = (4 * normal("asl.logits", SHAPE)).requires_grad_()
    targets = torch.from_numpy(uniform("asl.targets", SHAPE) < 0.3).to(torch.int8)
    value = loss(logits, targets)
    assert_agrees(value, f"{fixture}/loss")
    assert_agrees(torch.autograd.grad(value, logits)[0], f"{fixture}/grad")
