"""AAM agrees with the published loss in value and in the gradient of the cosines, in float64."""

import pytest
import torch

from mlbench_plugins.losses.aam import AAM
from tests.parity.fixtures import FIXTURES, assert_agrees, normal, uniform

SHAPE = (8, 12)
OPTIONS = {
    *("m", "k", "s", "gamma_pos", "gamma_neg", "probability_margin", "label_smooth", "reduction")
}


@pytest.mark.parametrize("fixture", [f"aam_{i}" for i in range(4)])
def test_value_and_gradient(fixture, labels):
    written = FIXTURES[fixture]
    loss = AAM(labels, **{name: written[name] for name in OPTIONS & set(written)})
    cosines = (0.9 * normal("am.cosines", SHAPE).tanh()).requires_grad_()
    targets = torch.from_numpy(uniform("am.targets", SHAPE) < 0.3).to(torch.int8)
    value = loss(loss.angles.scale * cosines, targets)
    assert_agrees(value, f"{fixture}/loss")
    assert_agrees(torch.autograd.grad(value, cosines)[0], f"{fixture}/grad")
