"""ASL, AAM and the focal loss by their formulas; losses that learn from unobserved labels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlbench import registry
from mlbench.contracts.made_up import made_up_context
from mlbench.types import LossContext, PluginError, evaluate_loss
from mlbench_plugins.losses.aam import AAM
from mlbench_plugins.losses.asl import ASL
from mlbench_plugins.losses.focal import Focal

LABELS = made_up_context(3)
LOGITS = torch.linspace(-6, 6, 10, dtype=torch.float64).view(2, 5)
TARGETS = torch.tensor([[1, 0, -1, 0, 1], [0, 0, 1, 1, -1]], dtype=torch.int8)
OPTIONS = {
    ASL: {
        "gamma_neg": [0, 0.5, 1, 3.5, 4],
        "gamma_pos": [0, 0.5, 1, 2],
        "clip": [0.0, 0.05, 0.2],
        "detach_focus": [False, True],
    },
    AAM: {
        "m": [0.0, 0.1, 0.35],
        "k": [0.3, 0.7, 0.8],
        "s": [5.0, 17.0, 23.0],
        "gamma_pos": [0, 0.5, 2],
        "gamma_neg": [0, 1, 2.5],
        "probability_margin": [0.0, 0.05, 0.3],
        "label_smooth": [0.0, 0.1],
    },
    Focal: {"gamma": [0, 0.3, 0.5, 1, 2, 5], "detach_focus": [False, True]},
}
each_loss = pytest.mark.parametrize("loss", OPTIONS)


def options(loss):
    return st.fixed_dictionaries({k: st.sampled_from(v) for k, v in OPTIONS[loss].items()})


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def asl(x, target, gamma_neg, gamma_pos, clip, detach_focus):
    p = sigmoid(x)
    if target:
        return -((1 - p) ** gamma_pos) * math.log(p)
    shifted = max(p - clip, 0)
    return -(shifted**gamma_neg) * math.log(1 - shifted)


def aam(x, target, m, k, s, gamma_pos, gamma_neg, probability_margin, label_smooth):
    cos = x / s
    pos, neg = sigmoid(s * (cos - m)), sigmoid(-s * (cos + m))
    if gamma_pos > 0 or gamma_neg > 0:
        neg = min(neg + probability_margin, 1)
    y = 1 - label_smooth if target else label_smooth
    weight = (y * neg + (1 - y) * pos) ** (y * gamma_pos + (1 - y) * gamma_neg)
    return -weight * (k * y * math.log(pos) + (1 - k) * (1 - y) * math.log(neg)) / s


def focal(x, target, gamma, detach_focus):
    p = sigmoid(x if target else -x)
    return -((1 - p) ** gamma) * math.log(p)


@pytest.mark.parametrize(("loss", "term"), [(ASL, asl), (AAM, aam), (Focal, focal)])
@given(st.data(), st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([0, 1])), min_size=1))
def test_value_is_the_published_one(loss, term, data, pairs):
    chosen = data.draw(options(loss))
    reach = chosen.get("s", 12.0)
    logits = reach * torch.tensor([[x for x, _ in pairs]], dtype=torch.float64)
    targets = torch.tensor([[y for _, y in pairs]], dtype=torch.int8)
    value = loss(LABELS, reduction="sum", **chosen)(logits, targets)
    expected = sum(term(reach * x, y, **chosen) for x, y in pairs)
    assert value.item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@each_loss
@given(
    st.data(),
    st.sampled_from([5, 23, 40, 64, 150, 1000]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_finite_for_any_logit(loss, data, reach, dtype):
    chosen = data.draw(options(loss))
    if "s" in chosen:
        chosen["s"] = reach
    logits = (reach * torch.linspace(-1, 1, 9)).expand(2, 9).to(dtype).requires_grad_()
    targets = torch.tensor([[1] * 9, [0] * 9], dtype=torch.int8)
    value = loss(LABELS, **chosen)(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite() and value.dtype == torch.float32
    assert gradient.isfinite().all()


def test_a_positive_keeps_its_gradient_where_the_published_floor_takes_it():
    targets = torch.ones(1, 1, dtype=torch.int8)
    gradients = []
    for eps in (0.0, 1e-8):
        logits = torch.full((1, 1), -30.0, requires_grad=True)
        ASL(LABELS, eps=eps)(logits, targets).backward()
        gradients.append(logits.grad.item())
    assert gradients == pytest.approx([-1.0, 0.0])


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_the_symmetric_asl_without_a_margin(gamma, detach):
    logits = LOGITS.clone().requires_grad_()
    asl = ASL(LABELS, gamma_neg=gamma, gamma_pos=gamma, clip=0, detach_focus=detach)
    found = Focal(LABELS, gamma=gamma, detach_focus=detach)(logits, TARGETS)
    expected = asl(logits, TARGETS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, logits)[0] for v in (found, expected)))


@pytest.mark.parametrize(
    "loss",
    [
        *(ASL(LABELS, gamma_neg=g, gamma_pos=1.5, detach_focus=False) for g in (0.5, 3)),
        *(
            AAM(LABELS, m=0.1, s=8, gamma_pos=0.5, gamma_neg=2, label_smooth=smooth)
            for smooth in (0.0, 0.1)
        ),
        *(Focal(LABELS, gamma=gamma) for gamma in (0.5, 2)),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_the_full_gradient_is_that_of_the_value(loss):
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, TARGETS), logits)


NINE = made_up_context(9)
OF_NINE = 3 * torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
POSITIVE = torch.zeros(6, 9, dtype=torch.bool)
POSITIVE[range(6), [0, 1, 2, 3, 4, 4]] = True
UNKNOWN = torch.where(POSITIVE, 1, -1)
EPOCHS = (LossContext(1, 4), LossContext(4, 4))


def made(name, **options):
    return registry.find("loss", name).load()(NINE, **options)


def gradient(loss, targets, context):
    logits = OF_NINE.clone().requires_grad_()
    return torch.autograd.grad(evaluate_loss(loss, logits, targets, context), logits)[0]


@pytest.mark.parametrize("context", EPOCHS, ids=str)
@pytest.mark.parametrize("name", ["wan", "em", "csl", "large_loss"])
def test_zeros_are_unobserved_only_if_the_option_says_so(name, context):
    options = {"delta": 10} if name == "large_loss" else {}
    assumed = UNKNOWN.clamp(min=0)
    told, zeros = made(name, **options), made(name, unobserved="0", **options)
    expected = gradient(told, UNKNOWN, context)
    assert torch.equal(gradient(zeros, assumed, context), expected)
    plain = name == "large_loss" and context.epoch == 1
    assert torch.equal(gradient(told, assumed, context), expected) == plain
    with pytest.raises(PluginError, match="unknown unobserved 'guess'; known: -1, 0"):
        made(name, unobserved="guess")


@pytest.mark.parametrize("scheme", ["reject", "correct"])
def test_large_losses_change_more_each_epoch_and_never_what_is_observed(scheme):
    targets = UNKNOWN.clone()
    targets[:, 6:] = 0
    loss = made("large_loss", scheme=scheme, delta=10.0)
    first = gradient(loss, targets, LossContext(1, 8))
    changed = [gradient(loss, targets, LossContext(e, 8)) != first for e in range(1, 9)]
    counts = [int(mask.sum()) for mask in changed]
    assert counts == [min(-(-54 * e // 10), 30) for e in range(8)]  # 30 labels are unobserved
    assert all(not (mask & (targets >= 0)).any() for mask in changed)
    assert loss._changed(10_000, LossContext(4, 8)) == 3000


@pytest.mark.parametrize(("delta", "epochs", "most"), [(6.0, 20, "5.26316"), (5.0, 21, "5")])
def test_a_share_that_would_be_all_labels_is_refused(delta, epochs, most):
    loss = made("large_loss", delta=delta)
    with pytest.raises(PluginError, match=rf"give a delta below {most}$"):
        evaluate_loss(loss, OF_NINE, UNKNOWN, LossContext(1, epochs))


def test_splc_takes_confident_labels_as_positives_from_its_epoch_on():
    before, after = (gradient(made("splc"), UNKNOWN, LossContext(e, 3)) for e in (1, 2))
    turned = ~POSITIVE & (OF_NINE.sigmoid() > 0.6)
    assert turned.any() and (before[turned] > 0).all() and (after[turned] < 0).all()
    assert torch.equal(before[~turned], after[~turned])


def test_csl_leaves_out_the_likeliest_of_the_batch_and_frequent_classes():
    loss = made("csl", likelihood_topk=2)
    left_out = (gradient(loss, UNKNOWN, EPOCHS[0]) == 0) & ~POSITIVE
    likeliest = OF_NINE.masked_fill(POSITIVE, -torch.inf).flatten().topk(12).indices
    assert left_out.flatten().nonzero().flatten().tolist() == sorted(likeliest.tolist())
    loss = made("csl", likelihood_topk=0, prior_threshold=0.5, prior=[0.9] + 8 * [0.1])
    assert loss.separable
    left_out = gradient(loss, UNKNOWN, EPOCHS[0]) == 0
    assert torch.equal(left_out, ~POSITIVE & (torch.arange(9) == 0))
    with pytest.raises(PluginError, match=r"prior_threshold=0.5 needs prior, 9 numbers"):
        made("csl", prior_threshold=0.5, prior=[0.1])
    with pytest.raises(PluginError, match=r"csl: prior\[8\]=nan must lie in \[0, 1\]"):
        made("csl", prior_threshold=0.5, prior=8 * [0.1] + [math.nan])


@pytest.mark.parametrize(("mode", "learns"), [("ignore", False), ("negative", True)])
def test_a_mode_of_csl_that_ignores_says_so(mode, learns):
    loss = made("csl", mode=mode)
    assert loss.uses_unknown == learns and loss.separable
    assert (gradient(loss, UNKNOWN, EPOCHS[0])[~POSITIVE] != 0).any() == learns


@pytest.mark.parametrize("mode", ["ignore", "ignore_normalize_classes"])
def test_a_mean_of_csl_is_over_the_labels_that_it_counts(mode):
    targets = torch.tensor([[1, 0, -1, -1, 0]], dtype=torch.int8)
    losses = (made("csl", mode=mode, reduction=r) for r in ("mean", "sum"))
    mean, total = (loss(OF_NINE[:1, :5], targets) for loss in losses)
    torch.testing.assert_close(mean * 3, total)
