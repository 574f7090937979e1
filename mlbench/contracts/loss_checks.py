"""What every loss must do, with its options at their defaults."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlbench.contracts.made_up import made_up_context, targets
from mlbench.contracts.outcome import (
    NotChecked,
    ensure,
    ensure_close,
    ensure_finite,
)

BATCH, LABELS = 6, 7
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCALES = (5.0, 23.0, 64.0)
"""Of cosines, in the literature."""
TOLERANCE = 1e-5


def _logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(BATCH, LABELS, generator=generator)).requires_grad_()


def _evaluate(factory: Any, logits_BC: Tensor, targets_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    loss = _call(factory(made_up_context(targets_BC.shape[1])), logits_BC, targets_BC)
    (gradient,) = torch.autograd.grad(loss, logits_BC)
    return loss.detach(), gradient


def _call(loss: Any, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """The value of a loss, once it is a scalar tensor."""
    value: Tensor = loss(logits_BC, targets_BC)
    what = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    scalar = isinstance(value, Tensor) and value.ndim == 0
    ensure(scalar, f"the loss returns {what}, not a scalar tensor; write return values.mean()")
    return value


def _ensure_finite(factory: Any, logit: float) -> None:
    """Check value and gradient for a batch of this logit, in each precision and for each target."""
    for dtype in DTYPES:
        for target in (0, 1):
            logits_BC = torch.full((2, 3), logit, dtype=dtype).requires_grad_()
            target_BC = torch.full((2, 3), target, dtype=torch.int8)
            what = f"for {dtype} logits of {logit:g} with target {target}"
            value = _call(factory(made_up_context(3)), logits_BC, target_BC)
            ensure_finite(value, f"the loss {what}")
            (gradient,) = torch.autograd.grad(value, logits_BC)
            ensure_finite(gradient, f"the gradient of the loss {what}")


def is_finite_for_extreme_logits(factory: Any) -> None:
    """Value and gradient for logits of -40 to 40 in float32, bfloat16 and float16."""
    for logit in (40.0, -40.0, 10.0, -10.0, 0.0):
        _ensure_finite(factory, logit)


def is_finite_for_any_cosine(factory: Any) -> None:
    """Value and gradient for cosines of -1 to 1, at the loss's scale and at others up to 64."""
    angles = getattr(factory(made_up_context(LABELS)), "angles", None)
    if angles is None:
        raise NotChecked("it does not work on angles")
    for scale in (angles.scale, *SCALES):
        for cosine in (-1.0, -0.5, 0.0, 0.5, 1.0):
            _ensure_finite(factory, scale * cosine)


def is_float32_inside_autocast(factory: Any) -> None:
    """The value is that of float32, whatever the precision of the logits."""
    loss, targets_BC = factory(made_up_context(LABELS)), targets(BATCH, LABELS)
    for dtype in DTYPES:
        logits_BC = _logits().detach().to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = _call(loss, logits_BC, targets_BC)
        ensure(inside.dtype == torch.float32, f"inside autocast the value is {inside.dtype}")
        outside = _call(loss, logits_BC.float(), targets_BC)
        what = f"inside autocast the value of {dtype} logits is not float32's"
        ensure_close(inside, outside, what, TOLERANCE)


def gives_unknown_labels_no_weight(factory: Any) -> None:
    """Logits of unknown labels change neither value nor gradient; all unknown gives 0."""
    if getattr(factory(made_up_context(LABELS)), "uses_unknown", False):
        raise NotChecked("it learns from unknown labels")
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
    """The values of two halves of a batch average to the whole's, or add up to it.

    A loss whose ``reduction`` is ``"sum"`` adds up; data-parallel training relies on either.
    """
    logits_BC, targets_BC = _logits(), targets(BATCH, LABELS)
    adds_up = getattr(factory(made_up_context(LABELS)), "reduction", "mean") == "sum"
    twice, weight = (2, 1.0) if adds_up else (1, 0.5)
    value, gradient = _evaluate(factory, logits_BC, targets_BC)
    double, _ = _evaluate(factory, torch.cat((logits_BC, logits_BC)), targets_BC.repeat(2, 1))
    change = "does not double" if adds_up else "changes"
    what = f"the value {change} for a batch that holds every image twice"
    ensure_close(double, twice * value, what, TOLERANCE)
    halves = [
        _evaluate(factory, x_BC.detach().requires_grad_(), y_BC)
        for x_BC, y_BC in zip(logits_BC.chunk(2), targets_BC.chunk(2), strict=True)
    ]
    how = "sum" if adds_up else "mean"
    both = weight * (halves[0][0] + halves[1][0])
    what = f"the {how} over two halves is not the value of the whole batch"
    ensure_close(both, value, what, TOLERANCE)
    joined = weight * torch.cat([half[1] for half in halves])
    what = "the gradients of two halves are not that of the whole batch"
    ensure_close(joined, gradient, what, TOLERANCE)


def pushes_logits_towards_their_targets(factory: Any) -> None:
    """No gradient has the wrong sign, and positives and negatives both have one."""
    targets_BC = targets(BATCH, LABELS)
    _, gradient = _evaluate(factory, _logits(), targets_BC)
    for target, sign, name in ((1, -1, "positives"), (0, 1, "negatives")):
        pushes = sign * gradient[targets_BC == target]
        ensure((pushes >= 0).all(), f"the loss pushes {name} away from their target")
        ensure(pushes.any(), f"the loss gives {name} no gradient")


def leaves_its_inputs_alone(factory: Any) -> None:
    """The loss writes to neither input, and its value does not depend on earlier calls."""
    logits_BC, targets_BC = _logits(), targets(BATCH, LABELS)
    loss = factory(made_up_context(LABELS))
    first, second = (_call(loss, logits_BC, targets_BC) for _ in range(2))
    same = torch.equal(logits_BC, _logits()) and torch.equal(targets_BC, targets(BATCH, LABELS))
    ensure(same, "the loss writes to its inputs")
    ensure(torch.equal(first, second), "the same call gives another value the second time")
