"""The attention scores of SSGRL's semantic decoupling and their derivatives in Triton.

``layers.decoupling`` has the formulas and the eager form. The M x C x K hyperbolic tangents never
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

SCORES = (16, 16, 32, 4)
"""Pixels, labels and channels of a program's tile, and its warps.

``benchmarks/gpu.py --sweep`` times alternatives.
"""
GRADIENTS = (8, 256, 4, 4)
"""Rows and channels of a program's tile, its warps, and unrolled steps of its loop."""
PROGRAMS = 1024
"""Enough to fill a large GPU: with fewer tiles, several programs share the sums of a tile."""


@triton.jit
def _tanh(x, APPROXIMATE: tl.constexpr):
    """Tanh in float32: within 2^-11 of its value by one instruction, or within 2^-22 by exp."""
    if APPROXIMATE:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return 1 - 2 / (1 + tl.exp2(2.8853900817779268 * x))


@triton.jit
def _scores_kernel(
    pixels, words, weight, scores, M, C, K,
    BM: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, APPROXIMATE: tl.constexpr,
):  # fmt: skip
    """A tile of the scores [C, M]. The sum over K is taken across threads once, at the end."""
    m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    c = tl.program_id(1).to(tl.int64) * BC + tl.arange(0, BC)
    sums = tl.zeros((BM, BC, BK), tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        p = tl.load(pixels + m[:, None] * K + k, (m < M)[:, None] & (k < K), 0).to(tl.float32)
        q = tl.load(words + c[:, None] * K + k, (c < C)[:, None] & (k < K), 0).to(tl.float32)
        w = tl.load(weight + k, k < K, 0).to(tl.float32)
        sums += w * _tanh(p[:, None, :] * q, APPROXIMATE)
    place = scores + c * M + m[:, None]
    tl.store(place, tl.sum(sums, 2), (m < M)[:, None] & (c < C))


@triton.jit
def _gradients_kernel(
    own, other, weight, grad, grad_own, grad_weight,
    M, N, K, own_stride, other_stride, share,
    BM: tl.constexpr, BK: tl.constexpr, UNROLL: tl.constexpr, APPROXIMATE: tl.constexpr,
    WEIGHT: tl.constexpr,
):  # fmt: skip
    """A share of the sums over the rows n of ``other`` [N, K], for a tile of ``own`` [M, K].

    With t = tanh(own other) and g = ``grad`` at (m, n): sum_n g other (1 - t^2), times the weight,
    is the gradient of ``own``; sum_mn g t is the gradient of the weight.
    """
    m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    part = tl.program_id(2).to(tl.int64)
    end = tl.minimum((part + 1) * share, N)
    inside = (m < M)[:, None] & (k < K)
    p = tl.load(own + m[:, None] * K + k, inside, 0).to(tl.float32)
    sums = tl.zeros((BM, BK), tl.float32)
    weight_sums = tl.zeros((BM, BK), tl.float32)
    for n in tl.range(part * share, end, loop_unroll_factor=UNROLL):
        q = tl.load(other + n * K + k, k < K, 0).to(tl.float32)
        g = tl.load(grad + m * own_stride + n * other_stride, m < M, 0)
        t = _tanh(p * q, APPROXIMATE)
        sums += (g[:, None] * q) * (1 - t * t)
        if WEIGHT:
            weight_sums += g[:, None] * t
    w = tl.load(weight + k, k < K, 0).to(tl.float32)
    tl.store(grad_own + (part * M + m)[:, None] * K + k, sums * w, inside)
    if WEIGHT:
        row = part * tl.num_programs(0) + tl.program_id(0)
        tl.store(grad_weight + row * K + k, tl.sum(weight_sums, 0), k < K)


def _is_approximate(x: Tensor) -> bool:
    """True if the GPU has an instruction for tanh that is as exact as the tensor's dtype."""
    if x.dtype == torch.float32 or x.device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(x.device) >= (7, 5)


# Operators, so that torch.compile takes each as a whole instead of tracing its launches.
torch.library.define("mlbench::tanh_scores", "(Tensor p, Tensor q, Tensor w) -> Tensor")
torch.library.define(
    "mlbench::tanh_scores_backward",
    "(Tensor g, Tensor p, Tensor q, Tensor w) -> (Tensor, Tensor, Tensor)",
)
scores: Callable[..., Tensor] = torch.ops.mlbench.tanh_scores
scores_backward: Callable[..., tuple[Tensor, ...]] = torch.ops.mlbench.tanh_scores_backward


@torch.library.impl("mlbench::tanh_scores", ("cuda", "cpu"))
def _scores(pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor) -> Tensor:
    """sum_k weight_k tanh(pixels_mk words_ck) -> [C, M] in float32."""
    (rows, channels), labels = pixels_MK.shape, len(words_CK)
    scores_CM = pixels_MK.new_empty((labels, rows), dtype=torch.float32)
    tile_m, tile_c, tile_k, warps = SCORES
    grid = (triton.cdiv(rows, tile_m), triton.cdiv(labels, tile_c))
    with torch.cuda.device_of(pixels_MK):  # Triton launches on the current device
        _scores_kernel[grid](
            pixels_MK.contiguous(), words_CK.contiguous(), weight_K, scores_CM, rows, labels,
            channels, tile_m, tile_c, tile_k, _is_approximate(pixels_MK),
            num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
    return scores_CM


@torch.library.register_fake("mlbench::tanh_scores")
def _(pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor) -> Tensor:
    return pixels_MK.new_empty((len(words_CK), len(pixels_MK)), dtype=torch.float32)


@register_flop_formula(torch.ops.mlbench.tanh_scores)
def _(pixels: torch.Size, words: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * words[0] * pixels.numel()


@torch.library.impl("mlbench::tanh_scores_backward", ("cuda", "cpu"))
def _scores_backward(
    grad_CM: Tensor, pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of pixels, words and weight, each in its dtype."""
    grad_CM = grad_CM.float().contiguous()
    pixels_MK, words_CK = pixels_MK.contiguous(), words_CK.contiguous()
    grad_pixels_MK, _ = _gradients(pixels_MK, words_CK, weight_K, grad_CM.T, weight=False)
    grad_words_CK, parts_PK = _gradients(words_CK, pixels_MK, weight_K, grad_CM, weight=True)
    return grad_pixels_MK, grad_words_CK, parts_PK.sum(dim=0).to(weight_K.dtype)


@torch.library.register_fake("mlbench::tanh_scores_backward")
def _(grad_CM: Tensor, pixels_MK: Tensor, words_CK: Tensor, weight_K: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (pixels_MK, words_CK, weight_K))


def _gradients(
    own_MK: Tensor, other_NK: Tensor, weight_K: Tensor, grad_MN: Tensor, *, weight: bool
) -> tuple[Tensor, Tensor]:
    """The gradient of ``own`` [M, K], and partial sums of the weight's gradient [P, K]."""
    (rows, channels), others = own_MK.shape, len(other_NK)
    tile_m, tile_k, warps, unroll = GRADIENTS
    tiles = triton.cdiv(rows, tile_m), triton.cdiv(channels, tile_k)
    parts = min(triton.cdiv(PROGRAMS, tiles[0] * tiles[1]), triton.cdiv(others, 16))
    dtype = own_MK.dtype if parts == 1 else torch.float32
    grad_own_PMK = own_MK.new_empty((parts, rows, channels), dtype=dtype)
    grad_weight_PK = own_MK.new_empty((parts * tiles[0], channels), dtype=torch.float32)
    with torch.cuda.device_of(own_MK):  # Triton launches on the current device
        _gradients_kernel[(*tiles, parts)](
            own_MK, other_NK, weight_K, grad_MN, grad_own_PMK, grad_weight_PK,
            rows, others, channels, *grad_MN.stride(), triton.cdiv(others, parts),
            tile_m, tile_k, unroll, _is_approximate(own_MK), weight,
            num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
    grad_own_MK = grad_own_PMK[0] if parts == 1 else grad_own_PMK.sum(dim=0).to(own_MK.dtype)
    return grad_own_MK, grad_weight_PK
