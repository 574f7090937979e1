"""Where a command computes."""

from __future__ import annotations

import os

from mlbench.types import SuiteError


def device_name(name: str) -> str:
    """The device that a flag names; ``auto`` takes CUDA where there is any.

    Raises:
        SuiteError: there is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise SuiteError(
            f"--device {name!r} is not a device; use auto, cpu, cuda, cuda:1"
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SuiteError(f"--device {name} but torch finds no CUDA device; use --device cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SuiteError("--device mps but torch finds no Metal device; use --device cpu")
    return name


def thread_count() -> int:
    """Decoding threads, unless a flag says how many."""
    return min(os.cpu_count() or 1, 16)
