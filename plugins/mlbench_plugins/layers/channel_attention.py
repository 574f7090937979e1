"""Attention over positions for each label and channel.

Xiwen Qu, Hao Che, Jun Huang, Linchuan Xu, Xiao Zheng, "Multi-layered Semantic Representation
Network for Multi-label Image Classification", arXiv 2106.11596 (the cross-modal attention).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlbench_plugins.layers.numerics import at_least_float32, blocks, has_kernels, without_autocast


def channel_attention(x_BDHW: Tensor, labels_CD: Tensor) -> Tensor:
    """sum_n softmax_n(x_nd l_cd) x_nd over the positions n: [B, C, D].

    The weights, B x C x D x N numbers, are computed for a few labels at a time, and once more in
    the backward pass instead of being kept. On GPUs by Triton kernels. In float32 at least, as
    softmax is.
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
    # Behind one another, not beside: a matrix product reads each power in one piece.
    powers_BDPN = torch.stack([torch.ones_like(x_BDN)] + [x_BDN] * moments, dim=-2)
    powers_BDPN[:, :, 2:] *= x_BDN[:, :, None]
    top_BCD = _largest(x_BDN, labels_CD)
    sums_BDCP = x_BDN.new_empty(*x_BDN.shape[:2], len(labels_CD), 1 + moments)
    for b, c in blocks(x_BDN.shape[0], len(labels_CD), x_BDN[0].numel(), x_BDN):
        exp_BDGN = _exp(x_BDN[b], labels_CD[c], top_BCD[b, c])
        sums_BDCP[b, :, c] = exp_BDGN @ powers_BDPN[b].mT
    total_BCD, *moments_BCD = sums_BDCP.transpose(1, 2).unbind(-1)
    mean_BCD, last_BCD = moments_BCD[0] / total_BCD, moments_BCD[-1] / total_BCD
    return mean_BCD, last_BCD - mean_BCD.square(), total_BCD.log() + top_BCD


def _largest(x_BDN: Tensor, labels_CD: Tensor) -> Tensor:
    """max_n of x_nd l_cd: the largest or the smallest x, by the sign of l."""
    high_B1D, low_B1D = x_BDN.amax(dim=-1)[:, None], x_BDN.amin(dim=-1)[:, None]
    return labels_CD * torch.where(labels_CD > 0, high_B1D, low_B1D)


def _exp(x_BDN: Tensor, labels_GD: Tensor, shift_BGD: Tensor) -> Tensor:
    """exp(x l - shift): [B, D, G, N]."""
    shift_BDG1 = -shift_BGD.transpose(1, 2)[..., None]
    return torch.addcmul(shift_BDG1, labels_GD.T[..., None], x_BDN[:, :, None]).exp_()


class _ChannelAttention(torch.autograd.Function):
    """The pooled map and its derivatives, chunked over labels."""

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
        grad_labels_CD = (grad_BCD * variance_BCD).sum(dim=0)
        if has_kernels(x_BDN):
            from mlbench_plugins.layers import attention_kernels

            others = (x_BDN.mT, labels_CD, mean_BCD, lse_BCD)
            return attention_kernels.attend_backward(grad_BCD, *others).mT, grad_labels_CD
        slope_BCD = grad_BCD * labels_CD
        factors_BDC2 = torch.stack((grad_BCD - slope_BCD * mean_BCD, slope_BCD), -1).transpose(1, 2)
        sums_BD2N = x_BDN.new_zeros(*x_BDN.shape[:2], 2, x_BDN.shape[2])
        for b, c in blocks(x_BDN.shape[0], len(labels_CD), x_BDN[0].numel(), x_BDN):
            weights_BDGN = _exp(x_BDN[b], labels_CD[c], lse_BCD[b, c])
            sums_BD2N[b] += factors_BDC2[b, :, c].transpose(2, 3) @ weights_BDGN
        constant_BDN, linear_BDN = sums_BD2N.unbind(dim=2)
        return torch.addcmul(constant_BDN, linear_BDN, x_BDN), grad_labels_CD
