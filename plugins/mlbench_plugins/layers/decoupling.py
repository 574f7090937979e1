"""Semantic decoupling: one attention map over the image for each label's word vector.

Tianshui Chen, Muxin Xu, Xiaolu Hui, Hefeng Wu, Liang Lin, "Learning Semantic-Specific Graph
Representation for Multi-Label Image Recognition", ICCV 2019, section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlbench_plugins.layers.numerics import chunk_size, has_kernels


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
        # Nothing stands between the last two layers, so they are one vector (K instead of K x K).
        # Their biases shift all scores of a label alike, which the softmax takes back.
        fold_K = (self.score.weight @ self.mix.weight).squeeze(0)
        shift_11 = functional.linear(self.mix.bias[None], self.score.weight, self.score.bias)
        # Under autocast pixels and words that no layer projects are still in float32.
        pixels_MK = self.visual(x_BND).flatten(0, 1).to(fold_K.dtype)
        scores_CM = tanh_scores(pixels_MK, words_CK, fold_K) + shift_11
        alpha_CBN = scores_CM.unflatten(1, (batch, positions)).softmax(dim=-1)
        pooled_BCD: Tensor = alpha_CBN.transpose(0, 1).to(x_BND.dtype) @ x_BND
        return pooled_BCD


def tanh_scores(pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor) -> Tensor:
    """sum_k weight_k tanh(pixels_mk words_ck) -> [C, M], in memory that does not grow with C.

    The hyperbolic tangents, M x C x K numbers, are computed for a few labels at a time and once
    more in the backward pass instead of being kept. On GPUs by Triton kernels, with the sum in
    float32.
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
    size = chunk_size(pixels_MK.numel(), pixels_MK)
    weight_K1 = weight_K[:, None]  # a matrix, as flop counters do not see products with vectors
    scores_GM1 = [_tanh(pixels_MK, words_GK) @ weight_K1 for words_GK in words_CK.split(size)]
    return torch.cat(scores_GM1).squeeze(-1)


def _tanh(pixels_MK: Tensor, words_GK: Tensor) -> Tensor:
    return (pixels_MK * words_GK[:, None]).tanh_()


class _TanhScores(torch.autograd.Function):
    """The sum and its derivatives, chunked over labels."""

    @staticmethod
    def forward(ctx: Any, pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor) -> Tensor:
        ctx.save_for_backward(pixels_MK, words_CK, weight_K)
        return _forward(pixels_MK, words_CK, weight_K)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_CM: Tensor) -> tuple[Tensor, ...]:
        """With t = tanh(p w): d/dp = weight w (1 - t^2), d/dw = weight p (1 - t^2)."""
        pixels_MK, words_CK, weight_K = ctx.saved_tensors
        if has_kernels(pixels_MK):
            from mlbench_plugins.layers import decoupling_kernels

            return decoupling_kernels.scores_backward(grad_CM, pixels_MK, words_CK, weight_K)
        # The terms of the 1 in 1 - t^2 are plain products; the loop subtracts those of t^2.
        grad_pixels_MK = grad_CM.T @ words_CK
        grad_words = grad_CM @ pixels_MK
        grad_weight_K = torch.zeros_like(weight_K)
        size = chunk_size(pixels_MK.numel(), pixels_MK)
        for begin in range(0, len(words_CK), size):
            rows = slice(begin, begin + size)
            t_GMK, grad_G1M = _tanh(pixels_MK, words_CK[rows]), grad_CM[rows, None]
            grad_weight_K += (grad_G1M @ t_GMK).sum(dim=(0, 1))
            t_GMK.square_()
            grad_words[rows] -= (grad_G1M @ (t_GMK * pixels_MK)).squeeze(1)
            t_GMK *= grad_G1M.transpose(1, 2)
            t_GMK *= words_CK[rows, None]
            grad_pixels_MK -= t_GMK.sum(dim=0) if len(t_GMK) > 1 else t_GMK[0]
        return grad_pixels_MK * weight_K, grad_words * weight_K, grad_weight_K
