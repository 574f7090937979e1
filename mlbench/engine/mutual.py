"""Mutual learning: models that learn side by side, each from the labels and from the others.

Zhang et al., Deep Mutual Learning, CVPR 2018 (arXiv:1706.00384), for many labels as in Prokofiev
and Sovrasov (arXiv:2209.06585): every label is a Bernoulli variable of its own.

Two models of the same settings learn along; their heads start from other random numbers. The first
is the one that is averaged, scored, measured and kept, and its loss is the one that is reported;
the second is there to be learned from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy


def divergence(logits_BC: Tensor, peers: Sequence[Tensor]) -> Tensor:
    """How far a model's predictions are from the others': a scalar, 0 if they agree.

    KL(Bernoulli(p_j) || Bernoulli(p)), p = sigmoid(logits), is averaged over images, labels and
    the other models j. No label is left out: the others have an opinion on unknown ones, too.

    Args:
        logits_BC: of the model that learns.
        peers: logits [B, C] of the others; they get no gradient.
    """
    own = logits_BC.float()
    found = []
    for peer in peers:
        theirs = peer.detach().float()
        p = theirs.sigmoid()
        # KL is the cross entropy less the entropy, which is the cross entropy with itself.
        found.append(cross_entropy(own, p) - cross_entropy(theirs, p))
    return torch.stack(found).mean()
