"""Automatic mixed precision, by name."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from mlbench.types import Precision

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Autocast to this precision; fp32 switches it off."""
    return torch.autocast(
        device.type, dtype=DTYPES.get(precision, torch.bfloat16), enabled=precision != "fp32"
    )
