"""Sharpness-aware minimisation: the gradient is taken where the loss near by is highest.

Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021
(arXiv:2010.01412), and its adaptive form, Kwon et al., ASAM, ICML 2021 (arXiv:2102.11600).

A step has two passes over the same batch: one at the weights w gives the gradient g, one at w + e
gives the gradient that the optimiser applies at w.

* e is made from the gradient of the global batch, so the number of processes changes nothing.
* e depends on the direction of g alone: a scaled loss (half precision) and a clipped g give the
  same e. What is clipped is therefore the gradient of the second pass; clipping that of the first,
  as some code does, is no clipping at all.
* If g overflows in half precision there is no second pass, and the step is left out.
* Dropout draws anew in the second pass, and batch norms move their statistics in both, unless
  ``sam_bn`` is ``first``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

TINY = 1e-12
"""Keeps a gradient of zero from becoming a step of NaN."""


@contextmanager
def ascended(
    parameters: Sequence[nn.Parameter], rho: float, adaptive: bool = False
) -> Iterator[None]:
    """Within it the parameters lie at w + e; after it at w again, to the bit.

    e = rho g / ||g|| (Foret et al., eq. 2), or with ``adaptive`` rho w^2 g / || |w| g || (Kwon et
    al., with T_w = |w|). Norms run over all parameters together.

    Args:
        parameters: with their gradients; those without one stay where they are.
        rho: the radius.
        adaptive: measure the radius relative to the size of each weight.
    """
    moved = [p for p in parameters if p.grad is not None]
    before = [p.detach().clone() for p in moved]
    with torch.no_grad():
        for p, climb in zip(moved, _climb(moved, rho, adaptive), strict=True):
            p.add_(climb)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, w in zip(moved, before, strict=True):
                p.copy_(w)


def _climb(parameters: Sequence[nn.Parameter], rho: float, adaptive: bool) -> list[Tensor]:
    """The step e of every parameter."""
    directions: list[Tensor] = []
    for p in parameters:
        assert p.grad is not None
        directions.append(p.grad * p.abs() if adaptive else p.grad)
    scale = rho / (nn.utils.get_total_norm(directions) + TINY)
    if adaptive:
        directions = [d * p.abs() for d, p in zip(directions, parameters, strict=True)]
    return [d * scale for d in directions]


@contextmanager
def statistics_kept(model: nn.Module, kept: bool = True) -> Iterator[None]:
    """Within it no batch norm in training moves its running statistics, unless ``kept`` is False.

    They still normalise by the batch.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracked = [m for m in norms if kept and m.training and m.track_running_stats]
    for norm in tracked:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracked:
            norm.track_running_stats = True
