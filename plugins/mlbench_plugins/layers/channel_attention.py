"""Attention over positions for each label and channel.

Xiwen Qu, Hao Che, Jun Huang, Linchuan Xu, Xiao Zheng, "Multi-layered Semantic Representation
Network for Multi-label Image Classification", arXiv 2106.11596 (the cross-modal attention).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mlbench_plugins.layers.numerics import (
    CPU_ELEMENTS,
    at_least_float32,
    blocks,
    has_kernels,
    without_autocast,
)

EXPORTED_BLOCKS = 16
"""Approximate limit of blocks in an exported program, to which each adds its operations."""


def channel_attention(x_BDHW: Tensor, labels_CD: Tensor) -> Tensor:
    """sum_n softmax_n(x_nd l_cd) x_nd over the positions n: [B, C, D].

    The weights, B x C x D x N numbers, are computed for a few channels at a time, and recomputed
    in the backward pass instead of being kept. GPUs use Triton kernels. Like softmax, it is
    computed in float32 at least.
    """
    x_BDN, labels_CD = x_BDHW.flatten(2), at_least_float32(labels_CD)
    if not has_kernels(x_BDN):
        x_BDN = at_least_float32(x_BDN)
    with without_autocast(x_BDN.device.type):
        if torch.is_grad_enabled():
            pooled: Tensor = _ChannelAttention.apply(x_BDN, labels_CD)
            return pooled
        return _forward(x_BDN, labels_CD, moments=1)[0]


def _forward(x_BDN: Tensor, labels_CD: Tensor, moments: int) -> tuple[Tensor, Tensor, Tensor]:
    """The attended mean [B, C, D], the variance (moments=2) and log sum exp of the weights."""
    if has_kernels(x_BDN):
        from mlbench_plugins.layers import attention_kernels

        return attention_kernels.attend(x_BDN.mT, labels_CD)
    labels_DC = labels_CD.T.contiguous()
    powers = [torch.ones_like(x_BDN), x_BDN]
    if moments == 2:
        powers.append(x_BDN * x_BDN)
    powers_BDPN = torch.stack(powers, dim=-2)
    top_BDC = _largest(x_BDN, labels_DC)
    sums_BDPC = x_BDN.new_empty(*x_BDN.shape[:2], 1 + moments, len(labels_CD))
    for b, d in _blocks(x_BDN, labels_DC):
        sums_BDPC[b, d] = powers_BDPN[b, d] @ _exp(x_BDN[b, d], labels_DC[d], top_BDC[b, d])
    total_BDC, *moments_BDC = sums_BDPC.unbind(2)
    mean_BDC, last_BDC = moments_BDC[0] / total_BDC, moments_BDC[-1] / total_BDC
    return mean_BDC.mT, (last_BDC - mean_BDC.square()).mT, (total_BDC.log() + top_BDC).mT


def _largest(x_BDN: Tensor, labels_DC: Tensor) -> Tensor:
    """max_n of x_nd l_cd: the largest or the smallest x, by the sign of l."""
    high_BD1, low_BD1 = x_BDN.amax(dim=-1, keepdim=True), x_BDN.amin(dim=-1, keepdim=True)
    return torch.addcmul(labels_DC.clamp(min=0) * high_BD1, labels_DC.clamp(max=0), low_BD1)


def _blocks(x_BDN: Tensor, labels_DC: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and channels to compute together."""
    images, channels, positions = x_BDN.shape
    elements = positions * labels_DC.shape[1]
    exported = max(CPU_ELEMENTS // elements, channels // EXPORTED_BLOCKS, 1)
    return blocks(images, channels, elements, x_BDN, exported)


def _exp(x_BDN: Tensor, labels_DC: Tensor, shift_BDC: Tensor) -> Tensor:
    """exp(x l - shift): [B, D, N, C]. Fast on CPUs, as only x is broadcast along the last axis."""
    return torch.addcmul(-shift_BDC[:, :, None], x_BDN[..., None], labels_DC[:, None]).exp_()


class _ChannelAttention(torch.autograd.Function):
    """The pooled map and its derivatives, in blocks of channels."""

    @staticmethod
    def forward(ctx: Any, x_BDN: Tensor, labels_CD: Tensor) -> Tensor:
        mean_BCD, variance_BCD, lse_BCD = _forward(x_BDN, labels_CD, moments=2)
        ctx.save_for_backward(x_BDN, labels_CD, mean_BCD, variance_BCD, lse_BCD)
        return mean_BCD

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_BCD: Tensor) -> tuple[Tensor, Tensor]:
        """With weights w and mean m: d/dx_n = w_n (1 + l (x_n - m)), d/dl = the variance."""
        x_BDN, labels_CD, mean_BCD, variance_BCD, lse_BCD = ctx.saved_tensors
        if has_kernels(x_BDN):
            from mlbench_plugins.layers import attention_kernels

            others = (x_BDN.mT, labels_CD, mean_BCD, lse_BCD)
            grad_x_BDN = attention_kernels.attend_backward(grad_BCD, *others).mT
            return grad_x_BDN, (grad_BCD * variance_BCD).sum(dim=0)
        grad_BDC, labels_DC = grad_BCD.mT.contiguous(), labels_CD.T.contiguous()
        mean_BDC, variance_BDC, lse_BDC = mean_BCD.mT, variance_BCD.mT, lse_BCD.mT
        slope_BDC = grad_BDC * labels_DC
        factors_BD2C = torch.stack((grad_BDC - slope_BDC * mean_BDC, slope_BDC), dim=-2)
        sums_BD2N = x_BDN.new_empty(*x_BDN.shape[:2], 2, x_BDN.shape[2])
        for b, d in _blocks(x_BDN, labels_DC):
            weights_BDNC = _exp(x_BDN[b, d], labels_DC[d], lse_BDC[b, d])
            sums_BD2N[b, d] = factors_BD2C[b, d] @ weights_BDNC.mT
        constant_BDN, linear_BDN = sums_BD2N.unbind(dim=2)
        grad_x_BDN = torch.addcmul(constant_BDN, linear_BDN, x_BDN)
        return grad_x_BDN, (grad_BDC * variance_BDC).sum(dim=0).T
