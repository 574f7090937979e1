"""From one term a label to the scalar that is minimised, with unknown labels left out.

``mean``
    The mean over images of the mean over each image's known labels (where all are known, the mean
    over B x C). The default of every loss.
``image_sum``
    The mean over images of the sum over each image's known labels.
``sum``
    The sum over everything known: what some papers' code minimises, and what their learning rates
    and weight decays were found with. It grows with the batch.

``mean`` and ``image_sum`` do not depend on how a batch is split into equal parts: the mean of the
parts' values and gradients is that of the whole, which is what data-parallel training averages.
Under ``sum`` the parts must be added: averaged gradients have to be multiplied by the number of
processes. An image without any known label is an image of loss 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlbench.types import PluginError

REDUCTIONS = ("mean", "image_sum", "sum")


def check_reduction(reduction: str) -> str:
    """The name itself if it is known.

    Raises:
        PluginError: naming it and the known ones.
    """
    if reduction not in REDUCTIONS:
        raise PluginError(f"there is no reduction {reduction!r}; known: {', '.join(REDUCTIONS)}")
    return reduction


def precise(logits_BC: Tensor) -> Tensor:
    """Logits in float32 at least: half precision has neither the range nor the digits for logs."""
    return logits_BC.to(torch.promote_types(logits_BC.dtype, torch.float32))


def reduce_known(terms_BC: Tensor, targets_BC: Tensor, reduction: str) -> Tensor:
    """Reduce the terms of the known labels (targets >= 0) to a scalar.

    Args:
        terms_BC: loss of each image and label, finite.
        targets_BC: in {1, 0, -1 unknown}.
        reduction: ``mean``, ``image_sum`` or ``sum``.
    """
    known_BC = targets_BC >= 0
    sums_B = terms_BC.where(known_BC, 0).sum(dim=1)
    if reduction == "sum":
        return sums_B.sum()
    if reduction == "mean":
        sums_B = sums_B / known_BC.sum(dim=1).clamp(min=1)
    return sums_B.mean()
