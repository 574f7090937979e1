"""The focal loss: its formula as a loop, its gradient, and what it has in common with ASL."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlbench.contracts.made_up import made_up_context
from mlbench_plugins.losses.asl import ASL
from mlbench_plugins.losses.focal import Focal

LABELS = made_up_context(3)
LOGITS = torch.linspace(-6, 6, 10, dtype=torch.float64).view(2, 5)
TARGETS = torch.tensor([[1, 0, -1, 0, 1], [0, 0, 1, 1, -1]], dtype=torch.int8)


@given(
    st.lists(st.tuples(st.floats(-12, 12), st.sampled_from([0, 1])), min_size=1),
    st.sampled_from([0, 0.5, 1, 2, 5]),
)
def test_value_is_the_papers(pairs, gamma):
    logits = torch.tensor([[x for x, _ in pairs]], dtype=torch.float64)
    targets = torch.tensor([[y for _, y in pairs]], dtype=torch.int8)
    expected = 0.0
    for x, y in pairs:
        p = 1 / (1 + math.exp(-x if y else x))
        expected -= (1 - p) ** gamma * math.log(p)
    value = Focal(LABELS, gamma=gamma, reduction="sum")(logits, targets)
    assert value.item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_it_is_the_symmetric_asl_without_a_margin(gamma, detach):
    logits = LOGITS.clone().requires_grad_()
    asl = ASL(LABELS, gamma_neg=gamma, gamma_pos=gamma, clip=0, detach_focus=detach)
    found = Focal(LABELS, gamma=gamma, detach_focus=detach)(logits, TARGETS)
    expected = asl(logits, TARGETS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, logits)[0] for v in (found, expected)))


@pytest.mark.parametrize("gamma", [0.5, 2])
def test_the_gradient_is_that_of_the_value(gamma):
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Focal(LABELS, gamma=gamma)(x, TARGETS), logits)


@pytest.mark.parametrize("gamma", [0.3, 2, 5])
@pytest.mark.parametrize("target", [0, 1])
def test_finite_where_probabilities_round_to_nothing(gamma, target):
    logits = torch.tensor([[-150.0, -40.0, 0.0, 40.0, 150.0]], requires_grad=True)
    value = Focal(LABELS, gamma=gamma)(logits, torch.full((1, 5), target, dtype=torch.int8))
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()
