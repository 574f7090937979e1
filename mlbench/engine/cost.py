"""The cost of inference that a run records: parameters, multiply-accumulates and memory."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mlbench.engine.flops import count
from mlbench.engine.model import MultiLabelModel, autocast
from mlbench.types import Efficiency, Precision

LARGEST_BATCH = 16
"""Batch size of the call whose memory is measured."""


def measure(
    model: MultiLabelModel,
    *,
    image_size: int,
    precision: Precision,
    device: torch.device,
) -> Efficiency:
    """Measure inference on random uint8 images that are already on the device.

    GMACs are 1e9 multiply-accumulates (half of torch's FLOPs) per image, counted on a batch of two.
    Peak memory is that of the weights plus the largest rise during one call with ``LARGEST_BATCH``
    images (on CUDA of the allocator, else of the resident set of the process;
    ``versions["peak_memory"]`` says which).

    The values of the weights stay. The model is left in evaluation mode, in channels_last, with
    gradients required of all parameters: autocast caches the casts of such parameters only.

    Args:
        model: a backbone and a head, on the device.
        image_size: pixels of a side.
        precision: of the autocast.
        device: where to run.

    Raises:
        MeasureError: some work would be counted as 0; the message names the module.
    """

    def images(batch_size: int) -> Tensor:
        pixels = torch.zeros(batch_size, 3, image_size, image_size, dtype=torch.uint8)
        return pixels.random_(0, 256, generator=torch.Generator().manual_seed(0)).to(device)

    backbone, head = cast(nn.Module, model.backbone), cast(nn.Module, model.head)
    model.eval().to(memory_format=torch.channels_last)
    backbone_macs, head_macs = _macs_per_image(model, images(2))
    model.requires_grad_(True)
    with torch.inference_mode(), autocast(device, precision):
        peak, how = peak_memory(model, images(LARGEST_BATCH), device)
    return Efficiency(
        parameters_backbone=sum(p.numel() for p in backbone.parameters()),
        parameters_head=sum(p.numel() for p in head.parameters()),
        gmacs_backbone=backbone_macs / 1e9,
        gmacs_head=head_macs / 1e9,
        peak_memory_mb=peak / 2**20,
        image_size=image_size,
        precision=precision,
        device=device_name(device),
        threads=torch.get_num_threads(),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": version("timm"),
            "peak_memory": how,
        },
        backbone_options=dict(getattr(backbone, "options", {})),
    )


def device_name(device: torch.device) -> str:
    """The product's name: ``NVIDIA H100 80GB HBM3``, ``AMD EPYC``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or device.type


def _macs_per_image(model: MultiLabelModel, images: Tensor) -> tuple[float, float]:
    """Multiply-accumulates per image of the backbone and of the head."""
    maps: list[tuple[Tensor, ...]] = []
    backbone, head = cast(nn.Module, model.backbone), cast(nn.Module, model.head)
    first = count(backbone, lambda: maps.append(model.features(images)), [images], "backbone")
    second = count(head, lambda: model.head(maps[0]), maps[0], "head")
    return first / len(images), second / len(images)


def peak_memory(module: nn.Module, inputs: Any, device: torch.device) -> tuple[float, str]:
    """Bytes of the weights plus the largest rise during one call, and how it was measured."""
    weights = sum(t.nbytes for t in [*module.parameters(), *module.buffers()])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        module(inputs)
        torch.cuda.synchronize(device)
        return weights + torch.cuda.max_memory_allocated(device) - before, "cuda allocator"
    _release_freed_memory()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _status_bytes("VmRSS")
        module(inputs)
        return weights + max(0, _status_bytes("VmHWM") - before), "VmHWM after clear_refs"
    before = _lifetime_peak()
    module(inputs)
    # An earlier peak of the process hides a rise, hence a lower bound.
    return weights + _lifetime_peak() - before, "ru_maxrss (a lower bound)"


def _release_freed_memory() -> None:
    """Return freed heap pages to the system; a call that reuses them would seem to need less."""
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def _lifetime_peak() -> int:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
