"""Precision and memory: leaving half precision, and computing large intermediates in parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from sysconfig import get_config_var
from typing import Any

import torch
from torch import Tensor

CPU_ELEMENTS = 1 << 18
"""1 MB in float32: fits into a core's level-2 cache."""
ACCELERATOR_ELEMENTS = 1 << 25
"""128 MB in float32: large enough for kernel launches to cost little."""
EXPORTED_LABELS = 16
"""Labels at a time in an exported program, whatever its batch."""

TRITON_RUNS = (
    find_spec("triton") is not None
    and bool(os.environ.get("CC") or which("gcc") or which("clang"))
    and Path(get_config_var("INCLUDEPY"), "Python.h").is_file()
)
"""True if Triton, a C compiler and Python's headers are there; it compiles its launchers in C."""


def has_kernels(x: Tensor) -> bool:
    """True where the layers' Triton kernels take this tensor: on GPUs, up to single precision."""
    return TRITON_RUNS and x.device.type == "cuda" and x.dtype != torch.float64


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32 or float64.

    Half precision lacks the range for exponentials and the precision for logarithms and angles.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """A context without autocast; a no-op on ``meta``, which torch has no autocast for."""
    enabled = device_type != "meta" and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if enabled else nullcontext()


def blocks(
    images: int, labels: int, elements: int, like: Tensor, exported: int = EXPORTED_LABELS
) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of labels that cover all pairs, images in the outer loop.

    A block takes several labels before it takes several images: a matrix product over one label is
    an outer product, which is bound by memory.

    Args:
        images: number of images.
        labels: number of labels, or of channels.
        elements: numbers that one image and label add to the intermediate.
        like: a tensor on the device of the computation.
        exported: labels of a block in an exported program.
    """
    if torch.compiler.is_exporting():  # the number of images is not known
        for left in range(0, labels, exported):
            yield slice(None), slice(left, left + exported)
        return
    pairs = chunk_size(elements, like)
    columns = min(labels, max(pairs, 1))
    rows = max(1, min(images, pairs // columns))
    for top in range(0, images, rows):
        for left in range(0, labels, columns):
            yield slice(top, top + rows), slice(left, left + columns)


def chunk_size(elements: int, like: Tensor) -> int:
    """The number of labels to compute at a time, at least one.

    Args:
        elements: numbers that one label adds to the intermediate.
        like: a tensor on the device of the computation.
    """
    if torch.compiler.is_exporting():  # the size of a batch is not known
        return EXPORTED_LABELS
    budget = CPU_ELEMENTS if like.device.type == "cpu" else ACCELERATOR_ELEMENTS
    return max(1, budget // max(1, elements))
