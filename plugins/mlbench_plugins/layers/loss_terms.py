"""Terms of losses, one for each image and label, and their reduction to a scalar.

Unknown labels are left out of every reduction:

``mean``
    The mean over images of the mean over each image's known labels (where all are known, the mean
    over B x C). The default of every loss.
``image_sum``
    The mean over images of the sum over each image's known labels.
``sum``
    The sum over all known labels of all images, which grows with the batch. Some papers' code
    minimises it, and their learning rates and weight decays suit it.

``mean`` and ``image_sum`` do not depend on how a batch is split into equal parts: the mean of the
parts' values and gradients equals that of the whole batch, as data-parallel training needs.
Under ``sum`` the parts add up: averaged gradients must be multiplied by the number of processes.
An image without any known label has a loss of 0. Losses that learn from unobserved labels, too,
reduce over all labels by ``reduce_terms``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mlbench_plugins.layers.numerics import at_least_float32

REDUCTIONS = ("mean", "image_sum", "sum")
UNOBSERVED = ("-1", "0")
"""Which labels count as unobserved: ``-1`` for unknown labels, ``0`` for all that are not positive
(for data in which absent and unobserved labels are both 0)."""


def is_unobserved(targets_BC: Tensor, unobserved: str) -> Tensor:
    """True where a label is unobserved, by one of ``UNOBSERVED``."""
    return targets_BC < 0 if unobserved == "-1" else targets_BC != 1


def reduce_known(terms_BC: Tensor, targets_BC: Tensor, reduction: str) -> Tensor:
    """Reduce the terms of the known labels (targets >= 0) to a scalar.

    Args:
        terms_BC: loss of each image and label, finite.
        targets_BC: in {1, 0, -1 unknown}.
        reduction: ``mean``, ``image_sum`` or ``sum``.
    """
    known_BC = targets_BC >= 0
    return reduce_terms(terms_BC.where(known_BC, 0), reduction, known_BC.sum(dim=1).clamp(min=1))


def reduce_terms(terms_BC: Tensor, reduction: str, labels_B: Tensor | None = None) -> Tensor:
    """Reduce terms to a scalar; ``mean`` divides by the labels of each image, all by default."""
    sums_B = terms_BC.sum(dim=1)
    if reduction == "sum":
        return sums_B.sum()
    if reduction == "mean":
        sums_B = sums_B / (terms_BC.shape[1] if labels_B is None else labels_B)
    return sums_B.mean()


def cross_entropy(
    logits_BC: Tensor, targets_BC: Tensor, pos_weight_C: Tensor | None = None
) -> Tensor:
    """-log p of positives, times ``pos_weight_C`` if given, and -log(1 - p) of all others.

    With p = sigmoid(logit); in float32 at least. Unknown labels get the term of a negative.
    """
    x_BC = at_least_float32(logits_BC)
    return functional.binary_cross_entropy_with_logits(
        x_BC,
        (targets_BC == 1).to(x_BC.dtype),
        pos_weight=None if pos_weight_C is None else pos_weight_C.to(x_BC.dtype),
        reduction="none",
    )


def floored_cross_entropy(logits_BC: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """-log(p + eps) and -log(1 - p + eps), with p = sigmoid(logit); in float32 at least.

    Losses that were published with such a floor never exceed -log(eps), are a little below 0 for a
    certain label, and give a positive of p << eps no gradient.
    """
    x_BC = at_least_float32(logits_BC)
    return -(x_BC.sigmoid() + eps).log(), -((-x_BC).sigmoid() + eps).log()


def focus(log_miss: Tensor, gamma: float | Tensor) -> Tensor:
    """The focusing weight miss^gamma from log miss, where miss = 1 - probability of the truth.

    Computed in the log domain: a power of a probability that rounds to 0 has no gradient.
    """
    return torch.exp(gamma * log_miss)


def focal(truth: Tensor, gamma: float, *, detach_focus: bool = False) -> Tensor:
    """(1 - p)^gamma * -log p, where p = sigmoid(truth) is the probability of the truth."""
    weight = focus(functional.logsigmoid(-truth), gamma)
    return (weight.detach() if detach_focus else weight) * -functional.logsigmoid(truth)


def raised(log_p: Tensor, margin: float) -> Tensor:
    """Map log p to log(min(p + margin, 1)): a probability within the margin of 1 has no loss."""
    return (log_p.exp() + margin).clamp(max=1).log()
