"""What every loss must do, with its options at their defaults."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from mlbench.contracts.made_up import made_up_context, targets
from mlbench.contracts.outcome import NotChecked, ensure, ensure_close, ensure_finite
from mlbench.engine.model import untrained
from mlbench.types import LossContext, evaluate_loss

BATCH, LABELS, MANY = 6, 8, 43  # no multiples of 7, so that each label's ``targets`` differ
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCALES = (5.0, 23.0, 64.0)
"""Scales of cosines in the literature."""
TOLERANCE = 1e-5
FIRST, LAST = LossContext(1, 3), LossContext(3, 3)
"""The epochs in which losses are checked; a loss that needs no context is the same in both."""
NEEDS = {"epoch"}


def _logits(labels: int = LABELS) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(BATCH, labels, generator=generator)).requires_grad_()


def _says(factory: Any, attribute: str, default: Any) -> Any:
    """The value that the loss declares, with its options at their defaults."""
    return getattr(factory(made_up_context(LABELS)), attribute, default)


def _evaluate(
    factory: Any, logits_BC: Tensor, targets_BC: Tensor, context: LossContext = LAST
) -> tuple[Tensor, Tensor]:
    """Return the value of the loss and its gradient [B, C]."""
    loss = _call(factory(made_up_context(targets_BC.shape[1])), logits_BC, targets_BC, context)
    (gradient,) = torch.autograd.grad(loss, logits_BC)
    return loss.detach(), gradient


def _call(loss: Any, logits_BC: Tensor, targets_BC: Tensor, context: LossContext = LAST) -> Tensor:
    """The value of a loss, after a check that it is a scalar tensor."""
    value: Tensor = evaluate_loss(loss, logits_BC, targets_BC, context)
    what = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    scalar = isinstance(value, Tensor) and value.ndim == 0
    ensure(scalar, f"the loss returns {what}, not a scalar tensor; write return values.mean()")
    return value


def _ensure_finite(factory: Any, logit: float) -> None:
    """Check value and gradient for a batch of this logit, in each precision and for each target."""
    contexts = (FIRST, LAST) if _says(factory, "needs", ()) else (LAST,)
    for dtype, target, context in itertools.product(DTYPES, (0, 1, -1), contexts):
        logits_BC = torch.full((2, 3), logit, dtype=dtype).requires_grad_()
        target_BC = torch.full((2, 3), target, dtype=torch.int8)
        when = f" in epoch {context.epoch}" if len(contexts) > 1 else ""
        what = f"for {dtype} logits of {logit:g} with target {target}{when}"
        value = _call(factory(made_up_context(3)), logits_BC, target_BC, context)
        ensure_finite(value, f"the loss {what}")
        (gradient,) = torch.autograd.grad(value, logits_BC)
        ensure_finite(gradient, f"the gradient of the loss {what}")


def names_what_it_needs(factory: Any) -> None:
    """``needs`` names what the core can give: ``{"epoch"}``."""
    needs = _says(factory, "needs", ())
    strange = sorted(set(needs) - NEEDS) if not isinstance(needs, str) else [needs]
    ensure(not strange, f"needs names {', '.join(strange)}; known: {NEEDS}", "needs")


def has_nothing_to_train(factory: Any) -> None:
    """A loss has no trainable parameters: the optimiser takes the model's."""
    reason = untrained(factory(made_up_context(LABELS)))
    ensure(not reason, reason)


def is_finite_for_extreme_logits(factory: Any) -> None:
    """Value and gradient are finite for logits of -40 to 40 in float32, bfloat16 and float16."""
    for logit in (40.0, -40.0, 10.0, -10.0, 0.0):
        _ensure_finite(factory, logit)


def is_finite_for_any_cosine(factory: Any) -> None:
    """Value and gradient are finite for cosines of -1 to 1, at the loss's scale and up to 64."""
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
    if _says(factory, "uses_unknown", False):
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


def learns_from_unknown_labels_if_it_says_so(factory: Any) -> None:
    """With ``uses_unknown``, unknown labels have a gradient in the first epoch or the last."""
    if not _says(factory, "uses_unknown", False):
        raise NotChecked("it gives unknown labels no weight")
    targets_BC = targets(BATCH, MANY)
    logits_BC = _logits(MANY)
    gradients = [_evaluate(factory, logits_BC, targets_BC, when)[1] for when in (FIRST, LAST)]
    ensure(
        any(gradient[targets_BC < 0].any() for gradient in gradients),
        "uses_unknown is true, and unknown labels have no gradient; leave the attribute out",
        "uses_unknown",
    )


def does_not_depend_on_the_order_of_images(factory: Any) -> None:
    """Images in another order give the same value, and each image keeps its gradient."""
    logits_BC, targets_BC = _logits(), targets(BATCH, LABELS)
    order = torch.arange(BATCH).roll(2)
    value, gradient = _evaluate(factory, logits_BC, targets_BC)
    other = logits_BC.detach()[order].requires_grad_()
    moved, moved_gradient = _evaluate(factory, other, targets_BC[order])
    ensure_close(moved, value, "the value depends on the order of the images", TOLERANCE)
    what = "the gradients depend on the order of the images"
    ensure_close(moved_gradient, gradient[order], what, TOLERANCE)


def averages_or_adds_up_over_images(factory: Any) -> None:
    """The values of two halves of a batch average to the whole's, or add up to it.

    A loss whose ``reduction`` is ``"sum"`` adds up; data-parallel training relies on either, unless
    the loss says ``separable = False``.
    """
    if not _says(factory, "separable", True):
        raise NotChecked("it is not separable, and is computed on the gathered batch")
    logits_BC, targets_BC = _logits(), targets(BATCH, LABELS)
    adds_up = _says(factory, "reduction", "mean") == "sum"
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
    """No gradient has the wrong sign, and positives and negatives both have one.

    It is checked in the first epoch, at probabilities of 0.12 to 0.88, as a loss may smooth labels,
    and correct them later.
    """
    targets_BC = targets(BATCH, LABELS)
    logits_BC = _logits().detach().clamp(-2, 2).requires_grad_()
    _, gradient = _evaluate(factory, logits_BC, targets_BC, FIRST)
    for target, sign, name in ((1, -1, "positives"), (0, 1, "negatives")):
        pushes = sign * gradient[targets_BC == target]
        ensure((pushes >= 0).all(), f"the loss pushes {name} away from their target")
        ensure(pushes.any(), f"the loss gives {name} no gradient")


def leaves_its_inputs_alone(factory: Any) -> None:
    """The loss writes to neither input, and its value does not depend on earlier calls."""
    logits_BC, targets_BC = _logits(), targets(BATCH, LABELS)
    loss = factory(made_up_context(LABELS))
    first, _, second = (_call(loss, logits_BC, targets_BC, when) for when in (FIRST, LAST, FIRST))
    same = torch.equal(logits_BC, _logits()) and torch.equal(targets_BC, targets(BATCH, LABELS))
    ensure(same, "the loss writes to its inputs")
    ensure(torch.equal(first, second), "the same call gives another value the second time")
