"""Terms of cross entropy losses, one a label, computed from logits so that they stay finite."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mlbench_plugins.layers.reduction import precise


def cross_entropy(
    logits_BC: Tensor, targets_BC: Tensor, pos_weight_C: Tensor | None = None
) -> Tensor:
    """-log p of positives, times ``pos_weight_C`` if given, and -log(1 - p) of all others.

    With p = sigmoid(logit); in float32 at least. Terms of unknown labels are the negatives'.
    """
    x_BC = precise(logits_BC)
    return functional.binary_cross_entropy_with_logits(
        x_BC,
        (targets_BC == 1).to(x_BC.dtype),
        pos_weight=None if pos_weight_C is None else pos_weight_C.to(x_BC.dtype),
        reduction="none",
    )


def focus(log_miss: Tensor, gamma: float | Tensor) -> Tensor:
    """The focusing weight miss^gamma of (the log of) how much probability misses the truth.

    Made in the log domain, because a power of a probability that rounds to 0 has no gradient.
    """
    return torch.exp(gamma * log_miss)


def raised(log_p: Tensor, margin: float) -> Tensor:
    """log(min(p + margin, 1)) of log p: a probability within the margin of 1 has no loss left."""
    return (log_p.exp() + margin).clamp(max=1).log()
