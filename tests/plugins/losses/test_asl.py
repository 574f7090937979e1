"""The asymmetric loss: its formula as a loop, its limits, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlbench.contracts.made_up import made_up_context
from mlbench_plugins.losses.asl import ASL

LABELS = made_up_context(3)
options = st.fixed_dictionaries(
    {
        "gamma_neg": st.sampled_from([0, 0.5, 1, 3.5, 4]),
        "gamma_pos": st.sampled_from([0, 0.5, 1, 2]),
        "clip": st.sampled_from([0.0, 0.05, 0.2]),
    }
)


def term(x, target, gamma_neg, gamma_pos, clip):
    p = 1 / (1 + math.exp(-x))
    if target:
        return -((1 - p) ** gamma_pos) * math.log(p)
    shifted = max(p - clip, 0)
    return -(shifted**gamma_neg) * math.log(1 - shifted)


@given(st.lists(st.tuples(st.floats(-12, 12), st.sampled_from([0, 1])), min_size=1), options)
def test_value_is_the_papers(pairs, chosen):
    logits = torch.tensor([[x for x, _ in pairs]], dtype=torch.float64)
    targets = torch.tensor([[y for _, y in pairs]], dtype=torch.int8)
    value = ASL(LABELS, reduction="sum", **chosen)(logits, targets)
    expected = sum(term(x, y, **chosen) for x, y in pairs)
    assert value.item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@given(options, st.sampled_from([torch.float16, torch.bfloat16, torch.float32]), st.booleans())
def test_finite_for_any_logit(chosen, dtype, detach):
    logits = torch.tensor([[-40.0, -18.0, -3.0, 0.0, 3.0, 18.0, 40.0]] * 2, dtype=dtype)
    logits.requires_grad_()
    targets = torch.tensor([[1] * 7, [0] * 7], dtype=torch.int8)
    value = ASL(LABELS, detach_focus=detach, **chosen)(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_a_positive_keeps_its_gradient_where_the_published_floor_takes_it():
    targets = torch.ones(1, 1, dtype=torch.int8)
    gradients = []
    for eps in (0.0, 1e-8):
        logits = torch.full((1, 1), -30.0, requires_grad=True)
        ASL(LABELS, eps=eps)(logits, targets).backward()
        gradients.append(logits.grad.item())
    assert gradients == pytest.approx([-1.0, 0.0])


@pytest.mark.parametrize("gamma_neg", [0.5, 3])
def test_the_full_gradient_is_that_of_the_value(gamma_neg):
    logits = torch.linspace(-5, 5, 12, dtype=torch.float64).view(2, 6).requires_grad_()
    targets = torch.tensor([[1, 0, -1, 0, 1, 0]] * 2, dtype=torch.int8)
    loss = ASL(LABELS, gamma_neg=gamma_neg, gamma_pos=1.5, detach_focus=False)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits)
