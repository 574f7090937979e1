"""What every loss must do, with its options at their defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mlbench.contracts.made_up import label_context, targets
from mlbench.contracts.outcome import NotChecked, ensure

BATCH, LABELS = 6, 7
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCALES = (5.0, 23.0, 64.0)
"""Of cosines, in the literature."""


def _logits(scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(BATCH, LABELS, generator=generator)
    return logits.to(dtype).requires_grad_()


def _evaluate(factory: Any, logits_BC: Tensor, targets_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    loss = factory(label_context(targets_BC.shape[1]))(logits_BC, targets_BC)
    ensure(isinstance(loss, Tensor) and loss.ndim == 0, "the loss is no scalar tensor")
    (gradient,) = torch.autograd.grad(loss, logits_BC)
    return loss.detach(), gradient


def _ensure_finite(factory: Any, logit: float) -> None:
    """Value and gradient where all logits are this one, in each precision and for each target."""
    for dtype in DTYPES:
        for target in (0, 1):
            logits_BC = torch.full((2, 3), logit, dtype=dtype).requires_grad_()
            target_BC = torch.full((2, 3), target, dtype=torch.int8)
            value, gradient = _evaluate(factory, logits_BC, target_BC)
            finite = value.isfinite() and gradient.isfinite().all()
            what = f"{dtype} logits of {logit:g} with target {target}"
            ensure(finite, f"value {value} or its gradient is not finite for {what}")


def is_finite_for_extreme_logits(factory: Any) -> None:
    """Value and gradient for logits of -40 to 40 in float32, bfloat16 and float16."""
    for logit in (40.0, -40.0, 10.0, -10.0, 0.0):
        _ensure_finite(factory, logit)


def is_finite_for_any_cosine(factory: Any) -> None:
    """Value and gradient for cosines of -1 to 1, at the loss's scale and at others up to 64."""
    angles = getattr(factory(label_context(LABELS)), "angles", None)
    if angles is None:
        raise NotChecked("it does not work on angles")
    for scale in (angles.scale, *SCALES):
        for cosine in (-1.0, -0.5, 0.0, 0.5, 1.0):
            _ensure_finite(factory, scale * cosine)


def is_float32_inside_autocast(factory: Any) -> None:
    """The value is that of float32, whatever precision the logits are in."""
    loss, targets_BC = factory(label_context(LABELS)), targets(BATCH, LABELS)
    for dtype in DTYPES:
        logits_BC = _logits(dtype=dtype).detach()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss(logits_BC, targets_BC)
        ensure(inside.dtype == torch.float32, f"inside autocast the value is {inside.dtype}")
        outside = loss(logits_BC.float(), targets_BC)
        _close(inside, outside, f"inside autocast the value of {dtype} logits is not float32's")


def gives_unknown_labels_no_weight(factory: Any) -> None:
    """Logits of unknown labels change neither value nor gradient; all unknown gives 0."""
    known_BC = targets(BATCH, LABELS)
    unknown_BC = known_BC < 0
    logits_BC = _logits()
    value, gradient = _evaluate(factory, logits_BC, known_BC)
    ensure(not gradient[unknown_BC].any(), "unknown labels have a gradient")
    moved_BC = logits_BC.detach().masked_fill(unknown_BC, 5.0).requires_grad_()
    moved, moved_gradient = _evaluate(factory, moved_BC, known_BC)
    ensure(torch.equal(value, moved), "logits of unknown labels change the value")
    ensure(torch.equal(gradient, moved_gradient), "logits of unknown labels change the gradient")
    nothing, none = _evaluate(factory, logits_BC, torch.full_like(known_BC, -1))
    ensure(nothing == 0, f"a batch without a known label has the loss {nothing}, not 0")
    ensure(not none.any(), "a batch without a known label has a gradient")


def averages_or_adds_up_over_images(factory: Any) -> None:
    """A mean: two halves of a batch average to the whole; a loss of ``reduction = "sum"``: add up.

    That is what data-parallel training does with them.
    """
    logits_BC, targets_BC = _logits(), targets(BATCH, LABELS)
    adds_up = getattr(factory(label_context(LABELS)), "reduction", "mean") == "sum"
    twice, weight = (2, 1.0) if adds_up else (1, 0.5)
    value, gradient = _evaluate(factory, logits_BC, targets_BC)
    double, _ = _evaluate(factory, torch.cat((logits_BC, logits_BC)), targets_BC.repeat(2, 1))
    change = "does not double" if adds_up else "changes"
    _close(double, twice * value, f"the value {change} where the batch is there twice over")
    half = BATCH // 2
    parts = [
        _evaluate(factory, logits_BC[rows].detach().requires_grad_(), targets_BC[rows])
        for rows in (slice(half), slice(half, None))
    ]
    how = "sum" if adds_up else "mean"
    both = weight * (parts[0][0] + parts[1][0])
    _close(both, value, f"the {how} over two halves is not the value of the whole batch")
    joined = weight * torch.cat([part[1] for part in parts])
    _close(joined, gradient, "the gradients of two halves are not that of the whole batch")


def pushes_logits_towards_their_targets(factory: Any) -> None:
    """No gradient has the wrong sign, and positives and negatives both have one."""
    targets_BC = targets(BATCH, LABELS)
    _, gradient = _evaluate(factory, _logits(), targets_BC)
    for target, sign, name in ((1, -1, "positives"), (0, 1, "negatives")):
        pushes = sign * gradient[targets_BC == target]
        ensure((pushes >= 0).all(), f"the loss pushes {name} away from their target")
        ensure(pushes.any(), f"the loss gives {name} no gradient")


def leaves_its_inputs_alone(factory: Any) -> None:
    """Neither logits nor targets are written to, and a value does not depend on earlier calls."""
    logits_BC, targets_BC = _logits(), targets(BATCH, LABELS)
    before = logits_BC.detach().clone(), targets_BC.clone()
    loss = factory(label_context(LABELS))
    first = loss(logits_BC, targets_BC)
    second = loss(logits_BC, targets_BC)
    same = torch.equal(logits_BC, before[0]) and torch.equal(targets_BC, before[1])
    ensure(same, "the loss writes to its inputs")
    ensure(torch.equal(first, second), "the same call gives another value the second time")


def _close(one: Tensor, two: Tensor, what: str) -> None:
    error = float((one - two).detach().abs().max())
    ensure(error <= 1e-5 * max(1.0, float(two.abs().max())), f"{what}: by {error:.3g}")


CHECKS: tuple[Callable[[Any], None], ...] = (
    is_finite_for_extreme_logits,
    is_finite_for_any_cosine,
    is_float32_inside_autocast,
    gives_unknown_labels_no_weight,
    averages_or_adds_up_over_images,
    pushes_logits_towards_their_targets,
    leaves_its_inputs_alone,
)
