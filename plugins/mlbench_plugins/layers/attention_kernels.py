"""MSRN's attention over positions, for each label and channel, in Triton, with its derivatives.

``layers.channel_attention`` has the formulas and the eager form. The B x C x D x N weights never
leave the registers. All sums have a fixed order: results repeat bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

FORWARD = (32, 32, 4, 4)
"""Labels and channels of a program's tile, its warps, and unrolled steps of its loop.

``benchmarks/gpu.py --sweep`` times alternatives.
"""
BACKWARD = (64, 64, 4, 2)
"""Positions and channels of a program's tile, its warps, and unrolled steps of its loop."""
LOG2_E = 1.4426950408889634


@triton.jit
def _forward_kernel(
    maps, labels, mean, variance, lse, N, C, D, scale,
    BC: tl.constexpr, BD: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Store the weighted mean and variance over an image's positions, and log2 sum exp."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    image = tl.program_id(2).to(tl.int64)
    maps += image * N * D + d
    high = tl.full((BD,), float("-inf"), tl.float32)
    low = tl.full((BD,), float("inf"), tl.float32)
    for n in tl.range(0, N, loop_unroll_factor=UNROLL):
        x = tl.load(maps + n * D, d < D).to(tl.float32)
        high = tl.maximum(high, x)
        low = tl.minimum(low, x)
    inside = (c < C)[:, None] & (d < D)
    slope = tl.load(labels + c[:, None] * D + d, inside).to(tl.float32) * scale
    top = slope * tl.where(slope > 0, high[None, :], low[None, :])
    total = tl.zeros((BC, BD), tl.float32)
    first = tl.zeros((BC, BD), tl.float32)
    second = tl.zeros((BC, BD), tl.float32)
    for n in tl.range(0, N, loop_unroll_factor=UNROLL):
        x = tl.load(maps + n * D, d < D).to(tl.float32)
        weight = tl.exp2(slope * x - top)
        total += weight
        first += weight * x
        second += weight * (x * x)
    place = (image * C + c)[:, None] * D + d
    first /= total
    tl.store(mean + place, first, inside)
    tl.store(variance + place, second / total - first * first, inside)
    tl.store(lse + place, tl.log2(total) + top, inside)


@triton.jit
def _backward_kernel(
    grad, maps, labels, mean, lse, grad_maps, N, C, D, scale,
    BN: tl.constexpr, BD: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Store the gradient of a tile of an image's positions: sum_c g w (1 + l (x - mean))."""
    d = tl.program_id(0) * BD + tl.arange(0, BD)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    image = tl.program_id(2).to(tl.int64)
    inside = (n < N)[:, None] & (d < D)
    place = (image * N + n)[:, None] * D + d
    x = tl.load(maps + place, inside).to(tl.float32)
    sums = tl.zeros((BN, BD), tl.float32)
    for c in tl.range(0, C, loop_unroll_factor=UNROLL):
        row = (image * C + c) * D + d
        g = tl.load(grad + row, d < D)
        slope = tl.load(labels + c * D + d, d < D).to(tl.float32)
        linear = g * slope
        constant = g - linear * tl.load(mean + row, d < D)
        weight = tl.exp2((slope * scale)[None, :] * x - tl.load(lse + row, d < D))
        sums += weight * (linear[None, :] * x + constant)
    tl.store(grad_maps + place, sums, inside)


# Operators, so that torch.compile takes each as a whole instead of tracing its launches.
torch.library.define(
    "mlbench::channel_attention", "(Tensor x, Tensor labels) -> (Tensor, Tensor, Tensor)"
)
torch.library.define(
    "mlbench::channel_attention_backward",
    "(Tensor grad, Tensor x, Tensor labels, Tensor mean, Tensor lse) -> Tensor",
)
Moments = tuple[Tensor, Tensor, Tensor]
attend: Callable[..., Moments] = torch.ops.mlbench.channel_attention
attend_backward: Callable[..., Tensor] = torch.ops.mlbench.channel_attention_backward


@torch.library.impl("mlbench::channel_attention", ("cuda", "cpu"))
def _attend(x_BND: Tensor, labels_CD: Tensor) -> tuple[Tensor, ...]:
    """Mean and variance of the positions, and log2 sum exp: [B, C, D] each, in float32."""
    (batch, positions, channels), labels = x_BND.shape, len(labels_CD)
    results: tuple[Tensor, ...] = _empty(x_BND, labels_CD)
    tile_c, tile_d, warps, unroll = FORWARD
    grid = (triton.cdiv(channels, tile_d), triton.cdiv(labels, tile_c), batch)
    with torch.cuda.device_of(x_BND):  # Triton launches on the current device
        _forward_kernel[grid](
            x_BND.contiguous(), labels_CD.contiguous(), *results, positions, labels, channels,
            LOG2_E, tile_c, tile_d, unroll, num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
    return results


@torch.library.register_fake("mlbench::channel_attention")
def _empty(x_BND: Tensor, labels_CD: Tensor) -> tuple[Tensor, ...]:
    shape = (len(x_BND), *labels_CD.shape)
    return tuple(x_BND.new_empty(shape, dtype=torch.float32) for _ in range(3))


@register_flop_formula(torch.ops.mlbench.channel_attention)
def _(x: torch.Size, labels: torch.Size, *_: Any, **__: Any) -> int:
    """Count what the eager form computes: products of the weights with ones and the maps."""
    return 4 * labels[0] * x.numel()


@torch.library.impl("mlbench::channel_attention_backward", ("cuda", "cpu"))
def _attend_backward(
    grad_BCD: Tensor, x_BND: Tensor, labels_CD: Tensor, mean_BCD: Tensor, lse_BCD: Tensor
) -> Tensor:
    """The gradient of the maps, in their dtype."""
    (batch, positions, channels), labels = x_BND.shape, len(labels_CD)
    grad_x_BND = x_BND.new_empty(x_BND.shape)
    tile_n, tile_d, warps, unroll = BACKWARD
    grid = (triton.cdiv(channels, tile_d), triton.cdiv(positions, tile_n), batch)
    with torch.cuda.device_of(x_BND):  # Triton launches on the current device
        _backward_kernel[grid](
            grad_BCD.float().contiguous(), x_BND.contiguous(), labels_CD.contiguous(), mean_BCD,
            lse_BCD, grad_x_BND, positions, labels, channels, LOG2_E,
            tile_n, tile_d, unroll, num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
    return grad_x_BND


@torch.library.register_fake("mlbench::channel_attention_backward")
def _(grad_BCD: Tensor, x_BND: Tensor, *others: Tensor) -> Tensor:
    return x_BND.new_empty(x_BND.shape)
