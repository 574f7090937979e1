"""AAM: its formula as a loop, its limits at any scale, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlbench.contracts.made_up import made_up_context
from mlbench_plugins.losses.aam import AAM

LABELS = made_up_context(3)
TARGETS = torch.tensor([[1, 0, -1, 0, 1], [0, 0, 1, 1, -1]], dtype=torch.int8)
options = st.fixed_dictionaries(
    {
        "m": st.sampled_from([0.0, 0.1, 0.35]),
        "k": st.sampled_from([0.3, 0.7, 0.8]),
        "s": st.sampled_from([5.0, 17.0, 23.0]),
        "gamma_pos": st.sampled_from([0, 0.5, 2]),
        "gamma_neg": st.sampled_from([0, 1, 2.5]),
        "probability_margin": st.sampled_from([0.0, 0.05, 0.3]),
        "label_smooth": st.sampled_from([0.0, 0.1]),
    }
)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def term(cos, target, m, k, s, gamma_pos, gamma_neg, probability_margin, label_smooth):
    pos, neg = sigmoid(s * (cos - m)), sigmoid(-s * (cos + m))
    if gamma_pos > 0 or gamma_neg > 0:
        neg = min(neg + probability_margin, 1)
    y = 1 - label_smooth if target else label_smooth
    weight = (y * neg + (1 - y) * pos) ** (y * gamma_pos + (1 - y) * gamma_neg)
    return -weight * (k * y * math.log(pos) + (1 - k) * (1 - y) * math.log(neg)) / s


@given(st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([0, 1])), min_size=1), options)
def test_value_is_the_published_one(pairs, chosen):
    cosines = torch.tensor([[c for c, _ in pairs]], dtype=torch.float64)
    targets = torch.tensor([[y for _, y in pairs]], dtype=torch.int8)
    value = AAM(LABELS, reduction="sum", **chosen)(chosen["s"] * cosines, targets)
    expected = sum(term(c, y, **chosen) for c, y in pairs)
    assert value.item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@given(
    options,
    st.sampled_from([5, 23, 64, 1000]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_finite_for_any_cosine_at_any_scale(chosen, scale, dtype):
    loss = AAM(LABELS, **chosen | {"s": scale})
    logits = (scale * torch.linspace(-1, 1, 9)).expand(2, 9).to(dtype).requires_grad_()
    targets = torch.tensor([[1] * 9, [0] * 9], dtype=torch.int8)
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite() and value.dtype == torch.float32
    assert gradient.isfinite().all()


@pytest.mark.parametrize("smooth", [0.0, 0.1])
def test_the_focusing_weight_is_differentiated(smooth):
    logits = torch.linspace(-5, 5, 10, dtype=torch.float64).view(2, 5).requires_grad_()
    loss = AAM(LABELS, m=0.1, s=8, gamma_pos=0.5, gamma_neg=2, label_smooth=smooth)
    assert torch.autograd.gradcheck(lambda x: loss(x, TARGETS), logits)
