"""Position codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_position(channels: int, height: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of a pixel's row, then of its column: [H*W, D], of the dtype of ``like``.

    Nicolas Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, normalised:
    rows 1..H and columns 1..W become angles up to 2 pi, whatever the size of the map. Sines and
    cosines alternate, with wavelengths in geometric progression from 2 pi to 10000 * 2 pi.

    Args:
        channels: D, a multiple of 4.
        height: H.
        width: W.
        like: gives device and dtype; computed in float32 at least.
    """
    precision = torch.promote_types(like.dtype, torch.float32)
    pairs = torch.arange(channels // 4, device=like.device, dtype=precision)
    frequency = 10000 ** (-4 * pairs / channels)

    def code(size: int) -> Tensor:
        place = torch.arange(1, size + 1, device=like.device, dtype=precision)
        angle = (2 * math.pi / (size + 1e-6)) * place[:, None] * frequency
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)

    rows = code(height)[:, None].expand(-1, width, -1)
    columns = code(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1).to(like.dtype)
