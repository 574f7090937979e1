"""The cost of inference: parameters, multiply-accumulates, latency and memory."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mlbench.engine.flops import count
from mlbench.engine.model import MultiLabelModel, autocast
from mlbench.types import Efficiency, Latency, Precision

WARM_UP = 3
MIN_REPEATS = 5
SECONDS = 1.0
"""How long batches of one size are timed, but at least MIN_REPEATS times."""


def measure(
    model: MultiLabelModel,
    *,
    image_size: int,
    precision: Precision,
    device: torch.device,
    batch_sizes: tuple[int, ...] = (1, 16),
) -> Efficiency:
    """Measure inference on random uint8 images that are already on the device.

    GMACs are 1e9 multiply-accumulates (half of torch's FLOPs) per image, counted on a batch of two.
    Latency is the wall-clock time of ``model(images)`` under autocast, in channels_last, from
    pixels to logits. Peak memory is that of the weights plus the largest rise during one call with
    the largest batch (on CUDA of the allocator, else of the resident set of the process;
    ``versions["peak_memory"]`` says which).

    The values of the weights stay. The model is left in evaluation mode, in channels_last, with
    gradients required of all parameters: autocast caches the casts of such parameters only, so
    that a frozen backbone would seem slower than a trained one.

    Args:
        model: a backbone and a head, on the device.
        image_size: pixels of a side.
        precision: of the autocast.
        device: where to run.
        batch_sizes: at which latency is measured.

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
        times = tuple(latency(model, images(size), size, device) for size in batch_sizes)
        peak, how = peak_memory(model, images(max(batch_sizes)), device)
    return Efficiency(
        parameters_backbone=sum(p.numel() for p in backbone.parameters()),
        parameters_head=sum(p.numel() for p in head.parameters()),
        gmacs_backbone=backbone_macs / 1e9,
        gmacs_head=head_macs / 1e9,
        latency=times,
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


def latency(module: nn.Module, inputs: Any, batch_size: int, device: torch.device) -> Latency:
    """Time ``module(inputs)`` after a warm-up; ``inputs`` is a batch of ``batch_size`` images."""
    timed = _cuda_ms if device.type == "cuda" else _wall_ms
    for _ in range(WARM_UP):
        timed(module, inputs, device)
    began, times = time.perf_counter(), list[float]()
    while len(times) < MIN_REPEATS or time.perf_counter() - began < SECONDS:
        times.append(timed(module, inputs, device))
    median, p95 = (float(value) for value in np.percentile(times, (50, 95)))
    return Latency(
        batch_size=batch_size,
        median_ms=median,
        p95_ms=p95,
        images_per_second=1000 * batch_size / median,
    )


def _cuda_ms(module: nn.Module, inputs: Any, device: torch.device) -> float:
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    with torch.cuda.device(device):
        start.record()
        module(inputs)
        end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _wall_ms(module: nn.Module, inputs: Any, device: torch.device) -> float:
    start = time.perf_counter()
    module(inputs)
    if device.type == "mps":
        torch.mps.synchronize()
    return 1000 * (time.perf_counter() - start)


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
