"""What all losses share: reductions, by the example of BCE, and precision; weights of positives."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import softplus

from mlbench import registry
from mlbench.contracts.made_up import known_context, made_up_context
from mlbench.data.loader import Mixed, part_sizes
from mlbench.engine.batch_parts import Part
from mlbench.engine.distributed import World
from mlbench.types import HeadOutput, LossContext, PluginError, evaluate_loss
from mlbench_plugins.layers.loss_terms import REDUCTIONS
from mlbench_plugins.losses.bce import BCE
from mlbench_plugins.losses.weighted_bce import WeightedBCE
from mlbench_plugins.losses.zlpr import ZLPR
from tests.engine import tiny

LOSSES = [p for p in registry.plugins() if (p.kind, p.distribution) == ("loss", "mlbench-mlic")]
each_loss = pytest.mark.parametrize("loss", [pytest.param(p.load(), id=p.name) for p in LOSSES])
OFFERED = {"two_way": (), "zlpr": ("mean", "sum")}
each_reduction = pytest.mark.parametrize(
    ("loss", "reduction"),
    [
        pytest.param(p.load(), reduction, id=f"{p.name}-{reduction}")
        for p in LOSSES
        for reduction in OFFERED.get(p.name, REDUCTIONS)
    ],
)

FORMS = [
    *((p.name, {}) for p in LOSSES),
    *(("csl", {"mode": mode}) for mode in ("negative", "ignore", "ignore_normalize_classes")),
    ("csl", {"prior_threshold": 0.1, "prior": [0.2, 0.05, 0.4]}),
    ("large_loss", {"scheme": "correct", "delta": 20}),
    ("em", {"unobserved": "0"}),
    *((name, {"eps": 1e-30}) for name in ("an", "an_ls", "wan", "em")),
    ("two_way", {"temperature_pos": 1e-3, "temperature_neg": 1e-3}),
    ("asl", {"gamma_neg": 0.5, "gamma_pos": 0.5, "clip": 0.2, "detach_focus": False}),
]
"""Every loss, and other forms that some have: (name, options)."""

LABELS = made_up_context(5)
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(6, 5, generator=GENERATOR)
TARGETS = torch.randint(-1, 2, (6, 5), generator=GENERATOR, dtype=torch.int8)
LATE = LossContext(2, 2)


@each_reduction
def test_only_the_sum_depends_on_how_a_batch_is_split(loss, reduction):
    made = loss(LABELS, reduction=reduction)
    parts = [
        evaluate_loss(made, *part, LATE)
        for part in zip(LOGITS.chunk(3), TARGETS.chunk(3), strict=True)
    ]
    joined = sum(parts) if reduction == "sum" else sum(parts) / 3
    whole = evaluate_loss(made, LOGITS, TARGETS, LATE)
    if getattr(made, "separable", True):
        torch.testing.assert_close(whole, joined)


@each_reduction
def test_reductions_of_one_image_differ_by_the_number_of_its_labels(loss, reduction):
    """Of those that are known, or of all where unknown ones count."""
    targets = torch.tensor([[1, 0, -1, -1, 0]], dtype=torch.int8)
    made, total = loss(LABELS, reduction=reduction), loss(LABELS, reduction="sum")
    found, whole = (evaluate_loss(one, LOGITS[:1], targets, LATE) for one in (made, total))
    labels = 5 if getattr(made, "uses_unknown", False) else 3
    per_label = reduction == "mean" and not isinstance(made, ZLPR)
    torch.testing.assert_close(found * (labels if per_label else 1), whole)


@each_reduction
def test_an_unknown_reduction_is_refused(loss, reduction):
    with pytest.raises(PluginError, match="unknown reduction 'avg'; known: mean, "):
        loss(LABELS, reduction="avg")


@each_loss
def test_double_precision_stays(loss):
    logits = LOGITS.double().requires_grad_()
    value = evaluate_loss(loss(LABELS), logits, TARGETS, LATE)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value.float(), evaluate_loss(loss(LABELS), LOGITS, TARGETS, LATE))


@each_loss
def test_targets_may_be_of_any_type(loss):
    whole, real = (
        evaluate_loss(loss(LABELS), LOGITS, targets, LATE)
        for targets in (TARGETS, TARGETS.to(torch.float32))
    )
    assert torch.equal(whole, real)


def in_parts(loss, rank, monkeypatch):
    """Value and gradient of a process's part of the batch, of four processes."""
    sizes = part_sizes(len(LOGITS), 4)
    parts = LOGITS.split(sizes), TARGETS.split(sizes)

    def all_gather(received, mine):
        for place, part in zip(received, parts[0 if mine.is_floating_point() else 1], strict=True):
            place.zero_()[: len(part)] = part

    monkeypatch.setattr(dist, "all_gather", all_gather)
    logits, targets = parts[0][rank].clone().requires_grad_(), parts[1][rank]
    training = tiny.training(loss=loss, world=World(rank, len(sizes), rank))
    part = Part(training, LATE, Mixed(logits, targets), len(LOGITS), first=True, last=True)
    value, _ = part.objective(HeadOutput(logits), ())
    return value.detach(), torch.autograd.grad(value, logits)[0]


@each_loss
def test_processes_make_the_loss_of_one(loss, monkeypatch):
    """Their mean, as DDP takes it of gradients, whether the loss is separable or not."""
    whole = LOGITS.clone().requires_grad_()
    expected = evaluate_loss(loss(LABELS), whole, TARGETS, LATE)
    (gradient,) = torch.autograd.grad(expected, whole)
    values, gradients = zip(
        *(in_parts(loss(LABELS), r, monkeypatch) for r in range(4)), strict=True
    )
    torch.testing.assert_close(torch.stack(values).mean(), expected.detach())
    torch.testing.assert_close(torch.cat(gradients) / 4, gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_gradients_are_finite_for_any_logits_together(name, options, dtype):
    """Of -40 to 40 with each target, in one batch: the contract checks each alone."""
    logits = torch.linspace(-40, 40, 27).repeat_interleave(3)
    targets = torch.tensor([1, 0, -1], dtype=torch.int8).repeat(27)
    for order in (slice(None), torch.arange(81).view(3, 27).T.flatten()):
        x = logits[order].view(27, 3).to(dtype).requires_grad_()
        loss = registry.find("loss", name).load()(made_up_context(3), **options)
        for context in (LossContext(1, 2), LATE):
            value = evaluate_loss(loss, x, targets[order].view(27, 3), context)
            (gradient,) = torch.autograd.grad(value, x)
            assert value.isfinite() and gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("temperature", [4.0, 1e-3])
def test_two_way_has_no_loss_where_a_side_is_empty(temperature):
    options = {"temperature_pos": temperature, "temperature_neg": temperature}
    loss = registry.find("loss", "two_way").load()(LABELS, **options)
    assert loss(torch.full((6, 5), -15.0), torch.ones_like(TARGETS)) == 0


REFUSED = [
    ("focal", {"gamma": -1}),
    *((name, {"eps": 0}) for name in ("an", "an_ls", "wan", "em")),
    *((name, {"margin": math.nan}) for name in ("hill", "splc")),
    *(
        ("csl", {f"{kind}_{of}": -1})
        for kind in ("gamma", "alpha")
        for of in ("pos", "neg", "unknown")
    ),
    ("csl", {"likelihood_topk": -1}),
    ("hill", {"lam": -1}),
    ("splc", {"gamma": -1}),
    ("asl", {"clip": 1.0}),
    ("weighted_bce", {"cap": 0.5}),
    ("aam", {"s": 0}),
    ("aam", {"gamma_neg": math.nan}),
    ("aam", {"label_smooth": 0.6}),
    ("aam", {"t": 0.5}),
    ("an_ls", {"smoothing": 0.6}),
    ("em", {"alpha": -1}),
    ("splc", {"tau": 1.5}),
    ("csl", {"clip": 1.0}),
    ("two_way", {"temperature_pos": 0}),
    ("large_loss", {"delta": 100}),
]


@pytest.mark.parametrize(("name", "options"), REFUSED)
def test_options_that_cannot_be_are_refused(name, options):
    ((option, value),) = options.items()
    with pytest.raises(PluginError, match=f"{name}: {option}={value} must lie in"):
        registry.find("loss", name).load()(LABELS, **options)


THREE = made_up_context(3)
TWO_IMAGES = torch.tensor([[0.5, -2.0, 3.0], [1.0, 0.0, -1.0]])
KNOWN = torch.tensor([[1, 0, -1], [0, -1, -1]], dtype=torch.int8)
POSITIVES = [25, 50, 80, 1, 0, 100]
"""Of 100 images."""


def weighted(**options):
    counts = np.full((len(POSITIVES), len(POSITIVES)), 7, np.float32)
    np.fill_diagonal(counts, POSITIVES)
    return WeightedBCE(known_context(counts, images=100), **options)


def test_reductions_over_known_labels():
    """Of which the first image has two, the second one."""
    a, b, c = softplus(torch.tensor([-0.5, -2.0, 1.0])).tolist()
    values = {r: BCE(THREE, reduction=r)(TWO_IMAGES, KNOWN).item() for r in REDUCTIONS}
    assert values == pytest.approx(
        {"mean": ((a + b) / 2 + c) / 2, "image_sum": (a + b + c) / 2, "sum": a + b + c}
    )


def test_an_image_is_torchs_soft_margin_over_its_known_labels():
    expected = [
        torch.nn.MultiLabelSoftMarginLoss()(x[y >= 0][None], y[y >= 0][None])
        for x, y in zip(TWO_IMAGES, KNOWN, strict=True)
    ]
    torch.testing.assert_close(BCE(THREE)(TWO_IMAGES, KNOWN), sum(expected) / len(expected))


def test_weights_are_negatives_a_positive_within_the_cap():
    weights = weighted(cap=10).pos_weight
    torch.testing.assert_close(weights, torch.tensor([3.0, 1.0, 0.25, 10.0, 10.0, 0.1]))
    assert weighted(cap=1000).pos_weight[3:].tolist() == pytest.approx([99, 1000, 0.001])


def test_value_is_the_weighted_cross_entropy_of_known_labels():
    logits = torch.tensor([[0.5, -1.0, 2.0, -3.0, 1.0, 4.0]], dtype=torch.float64)
    targets = torch.tensor([[1, 0, -1, 1, 0, 1]], dtype=torch.int8)
    terms = softplus(torch.tensor([-0.5, -1.0, 3.0, 1.0, -4.0]))
    expected = sum(w * term for w, term in zip([3, 1, 10, 1, 0.1], terms.tolist(), strict=True))
    for reduction, value in {"sum": expected, "mean": expected / 5}.items():
        loss = weighted(cap=10, reduction=reduction)
        assert loss(logits, targets).item() == pytest.approx(value, rel=1e-6)
