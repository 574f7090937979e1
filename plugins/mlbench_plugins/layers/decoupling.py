"""Semantic decoupling: one attention map over the image for each label's word vector.

Tianshui Chen, Muxin Xu, Xiaolu Hui, Hefeng Wu, Liang Lin, "Learning Semantic-Specific Graph
Representation for Multi-Label Image Recognition", ICCV 2019, section 3.2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench_plugins.layers.numerics import (
    at_least_float32,
    blocks,
    chunk_size,
    has_kernels,
    without_autocast,
)


class SemanticDecoupling(nn.Module):
    """Feature map [B, D, H, W] and projected words [C, K] to one vector a label [B, C, D].

    Args:
        channels: D.
        joint: K, width of the joint space of words and pixels (d1 in the paper). None takes the
            pixels as they are, D wide.
    """

    def __init__(self, channels: int, joint: int | None) -> None:
        super().__init__()
        width = joint or channels
        self.visual = nn.Linear(channels, joint, bias=False) if joint else nn.Identity()
        self.mix = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, x_BDHW: Tensor, words_CK: Tensor) -> Tensor:
        """Attention-pooled features: eq. 1 to 5."""
        x_BND = x_BDHW.flatten(2).transpose(1, 2)
        batch, positions, _ = x_BND.shape
        # No activation separates the last two layers, so they fold into one vector (K, not K x K).
        # Their biases shift all scores of a label alike, which cancels in the softmax.
        fold_K = (self.score.weight @ self.mix.weight).squeeze(0)
        shift_11 = functional.linear(self.mix.bias[None], self.score.weight, self.score.bias)
        # Under autocast, pixels that no layer projects are still in float32.
        pixels_MK = self.visual(x_BND).flatten(0, 1).to(fold_K.dtype)
        scores_CM = tanh_scores(pixels_MK, words_CK, fold_K) + shift_11
        alpha_CBN = scores_CM.unflatten(1, (batch, positions)).softmax(dim=-1)
        pooled_BCD: Tensor = alpha_CBN.transpose(0, 1).to(x_BND.dtype) @ x_BND
        return pooled_BCD


def tanh_scores(pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor) -> Tensor:
    """sum_k weight_k tanh(pixels_mk words_ck) -> [C, M], in memory that does not grow with C.

    The hyperbolic tangents, M x C x K numbers, are computed in parts, and recomputed in the
    backward pass instead of being kept. GPUs use Triton kernels, which sum in float32.
    """
    words_CK, weight_K = words_CK.to(pixels_MK.dtype), weight_K.to(pixels_MK.dtype)
    if torch.is_grad_enabled():
        scores: Tensor = _TanhScores.apply(pixels_MK, words_CK, weight_K)
        return scores
    return _forward(pixels_MK, words_CK, weight_K)


def _forward(pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor) -> Tensor:
    if has_kernels(pixels_MK):
        from mlbench_plugins.layers import decoupling_kernels

        return decoupling_kernels.scores(pixels_MK, words_CK, weight_K)
    with without_autocast(pixels_MK.device.type):  # half precision rounds small tanh to 0
        return _in_blocks(pixels_MK, words_CK, weight_K).to(pixels_MK.dtype)


def _in_blocks(pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor) -> Tensor:
    # tanh(x) = 2 sigmoid(2x) - 1, and CPUs compute a sigmoid in a quarter of the time.
    x_MK, words_CK, weight_K = map(at_least_float32, (pixels_MK, words_CK, weight_K))
    pixels, channels = x_MK.shape
    scores_CM = x_MK.new_empty(len(words_CK), pixels)
    weight_K1 = 2 * weight_K[:, None]  # a matrix, as flop counters do not see products with vectors
    room: Tensor | None = None
    for m, c in blocks(pixels, len(words_CK), channels, x_MK):
        x_RK, words_GK = x_MK[m], 2 * words_CK[c]
        shape = (words_GK.shape[0], x_RK.shape[0], channels)
        # All blocks reuse the memory of the first: allocating pages costs more than the product.
        out = None if room is None else room[: math.prod(shape)].view(shape)
        s_GRK = torch.mul(x_RK, words_GK[:, None], out=out).sigmoid_()
        scores_CM[c, m] = (s_GRK @ weight_K1).squeeze(-1)
        if room is None and not torch.compiler.is_exporting():  # where sizes may be unknown
            room = s_GRK.flatten()
    return scores_CM.sub_(weight_K.sum())


class _TanhScores(torch.autograd.Function):
    """The sum and its derivatives, in parts that fit into a cache."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return _forward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_CM: Tensor) -> tuple[Tensor, ...]:
        if has_kernels(ctx.saved_tensors[0]):
            from mlbench_plugins.layers import decoupling_kernels

            return decoupling_kernels.scores_backward(grad_CM, *ctx.saved_tensors)
        with without_autocast(grad_CM.device.type):  # products in place need one precision
            return _backward(grad_CM, *ctx.saved_tensors)


def _backward(grad_CM: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """With s = sigmoid(2 p w): d/dp = 4 weight w (s - s^2), d/dw = 4 weight p (s - s^2)."""
    x_MK, words, weight, grad_CM = map(at_least_float32, (*inputs, grad_CM))
    grad_x_MK, grad_words, grad_weight = map(torch.zeros_like, (x_MK, words, weight))
    size = chunk_size(2 * x_MK.shape[1], x_MK)
    room_2MK = x_MK.new_empty(2, min(size, len(x_MK)), x_MK.shape[1])
    parts = zip(x_MK.split(size), grad_x_MK.split(size), grad_CM.split(size, 1), strict=True)
    for x_RK, grad_x_RK, grad_CR in parts:
        s_RK, product_RK = room_2MK[:, : len(x_RK)]
        for word_K, grad_word_K, grad_R in zip(2 * words, grad_words, grad_CR, strict=True):
            torch.mul(x_RK, word_K, out=s_RK).sigmoid_()
            grad_weight.addmv_(s_RK.T, grad_R)
            s_RK.addcmul_(s_RK, s_RK, value=-1)
            torch.mul(s_RK, x_RK, out=product_RK)
            grad_word_K.addmv_(product_RK.T, grad_R)
            grad_x_RK.addcmul_(s_RK.mul_(grad_R[:, None]), word_K)  # word_K is doubled already
    grads = grad_x_MK * (2 * weight), grad_words * (4 * weight), 2 * grad_weight - grad_CM.sum()
    return tuple(x.to(inputs[0].dtype) for x in grads)
