"""The cost of inference that a run records: parameters, multiply-accumulates and memory.

torch's flop counter knows matrix products, convolutions and attention. It silently counts 0 for
``(W * x).sum(-1)`` and for the fused kernels of ``nn.MultiheadAttention`` and recurrent layers.
``count`` therefore follows every parameter through a forward pass, and raises an error instead of
returning a number that lacks its work.
"""

from __future__ import annotations

import ctypes
import math
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count
from torch.utils.weak import WeakTensorKeyDictionary

from mlbench.data.loader import is_out_of_memory
from mlbench.engine.model import MultiLabelModel, autocast
from mlbench.types import NO_COSTS, Efficiency, MeasureError, Precision

LARGEST_BATCH = 16
"""Batch size of the call whose memory is measured."""


def measure_if_it_fits(
    model: MultiLabelModel, image_size: int, precision: Precision, device: torch.device
) -> tuple[Efficiency | None, tuple[str, ...]]:
    """``measure``, and notes for the record: without costs if the device's memory is short."""
    try:
        found = measure(model, image_size=image_size, precision=precision, device=device)
        return found, ()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None, (NO_COSTS,)


def measure(
    model: MultiLabelModel, *, image_size: int, precision: Precision, device: torch.device
) -> Efficiency:
    """Measure inference on random uint8 images that are already on the device.

    GMACs are 1e9 multiply-accumulates (half of torch's FLOPs) per image, counted on a batch of two.
    Peak memory is that of the weights plus the largest rise during one call with ``LARGEST_BATCH``
    images (on CUDA of the allocator, else of the resident set of the process;
    ``versions["peak_memory"]`` says which).

    The values of the weights stay. The model is left in evaluation mode, in channels_last, with
    gradients required of all parameters: autocast caches the casts of such parameters only.

    Raises:
        MeasureError: some work would be counted as 0; the message names the module.
    """

    def images(batch_size: int) -> Tensor:
        pixels = torch.zeros(batch_size, 3, image_size, image_size, dtype=torch.uint8)
        return pixels.random_(0, 256, generator=torch.Generator().manual_seed(0)).to(device)

    backbone, head = cast(nn.Module, model.backbone), cast(nn.Module, model.head)
    model.eval().to(memory_format=torch.channels_last)
    pair, maps = images(2), list[tuple[Tensor, ...]]()
    backbone_macs = count(backbone, lambda: maps.append(model.features(pair)), [pair], "backbone")
    head_macs = count(head, lambda: model.head(maps[0]), maps[0], "head")
    model.requires_grad_(True)
    with torch.inference_mode(), autocast(device, precision):
        peak, how = peak_memory(model, images(LARGEST_BATCH), device)
    return Efficiency(
        parameters_backbone=sum(p.numel() for p in backbone.parameters()),
        parameters_head=sum(p.numel() for p in head.parameters()),
        gmacs_backbone=backbone_macs / len(pair) / 1e9,
        gmacs_head=head_macs / len(pair) / 1e9,
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
    keep_freed_memory(False)  # a call that reuses it would seem to need less
    with suppress(OSError):
        restart_peak()
        before = status_bytes("VmRSS")
        module(inputs)
        return weights + max(0, status_bytes("VmHWM") - before), "VmHWM after clear_refs"
    before = _lifetime_peak()
    module(inputs)
    # An earlier peak of the process hides a rise, hence a lower bound.
    return weights + _lifetime_peak() - before, "ru_maxrss (a lower bound)"


def keep_freed_memory(keep: bool) -> None:
    """Reuse freed memory for the next tensors, or return it to the system; glibc only.

    On the CPU new pages take up to a third of a training step; reuse raises the peak by a sixth.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(-3, 2**30 if keep else 2**25)  # M_MMAP_THRESHOLD
        library.mallopt(-1, 2**31 - 1 if keep else 2**26)  # M_TRIM_THRESHOLD
        if not keep:
            library.malloc_trim(0)


def restart_peak() -> None:
    """Let the peak of this process's resident set, ``VmHWM``, begin anew.

    Raises:
        OSError: the system does not offer it.
    """
    Path("/proc/self/clear_refs").write_text("5")


def status_bytes(field: str) -> int:
    """A size in Linux's status of this process, such as ``VmRSS``.

    Raises:
        OSError: there is none.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def _lifetime_peak() -> int:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


# ----------------------------------------------------------------------------- multiply-accumulates
aten = torch.ops.aten

ADDED: Mapping[Any, Callable[..., int]] = {
    aten.mv: lambda matrix, *_, **__: 2 * math.prod(matrix),
    aten.addmv: lambda bias, matrix, *_, **__: 2 * math.prod(matrix),
    aten.dot: lambda first, *_, **__: 2 * first[0],
    # The CPU kernel, which torch 2.11 does not count.
    aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
}
"""FLOPs of products that torch's counter lacks, from the shapes of their arguments."""

MULTIPLY = {aten.mul, aten.mul_, aten.div, aten.div_, aten.addcmul, aten.addcmul_}
MOVE = {
    *(aten.view, aten._unsafe_view, aten.reshape, aten.permute, aten.transpose, aten.t),
    *(aten.unsqueeze, aten.squeeze, aten.expand, aten.slice, aten.select, aten.alias, aten.detach),
    *(aten.clone, aten._to_copy, aten.cat, aten.stack),
}
ADD = {aten.add, aten.add_, aten.sub, aten.sub_, aten.rsub, aten.neg}
REDUCE = {aten.sum, aten.mean, aten.nansum, aten.cumsum, aten.avg_pool2d, aten._adaptive_avg_pool2d}
HARMLESS = {
    *MOVE,
    *ADD,
    *(aten.where, aten.maximum, aten.minimum, aten.masked_fill, aten.copy_, aten.expand_as),
    *(aten.embedding, aten.index, aten.index_select, aten.gather, aten.index_put, aten.index_put_),
    *(aten.select_scatter, aten.slice_scatter, aten._prelu_kernel),
    *(aten.native_layer_norm, aten.native_group_norm, aten.native_batch_norm),
    *(aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm, aten.miopen_batch_norm),
}
"""Operations on parameters and activations without multiply-accumulates of their own.

By convention, norms and element-wise scales are not counted."""


def count(module: nn.Module, call: Callable[[], Any], inputs: Iterable[Tensor], name: str) -> int:
    """Count the multiply-accumulates of ``call()``, which runs ``module`` on ``inputs``.

    One multiply-accumulate is two FLOPs. The parameters of ``module`` no longer require gradients
    afterwards.

    Args:
        module: whose parameters are followed; it should be in evaluation mode.
        call: a forward pass.
        inputs: of the pass; all tensors computed from them are activations.
        name: of the module, for messages.

    Raises:
        MeasureError: some work would be counted as 0; the message names the module.
    """
    with torch.no_grad():
        call()  # kernels that are loaded by a first call register what they cost only then
    tracker = _ParameterTracker(module, inputs, name)
    counter = FlopCounterMode(display=False, custom_mapping=dict(ADDED))
    module.requires_grad_(False)  # the counter fails on a trained parameter given to a submodule
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # which the counter does not know
    try:
        with torch.no_grad(), tracker, counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    if tracker.missed:
        raise MeasureError(
            "the flop counter would silently leave out "
            + "; ".join(tracker.missed)
            + ". Write a weighted sum as torch.einsum or matmul, and attention as "
            "scaled_dot_product_attention, so that its work is counted"
        )
    return int(counter.get_total_flops()) // 2


Axes = frozenset[int] | None
"""Axes along which a parameter in a product varies, counted from the last; None if unknown."""


class _ParameterTracker(TorchDispatchMode):
    """Follows parameters, and tensors computed from them alone, until they meet activations.

    A product of a parameter and an activation is followed through sums, casts and views. If it is
    then summed along an axis of the parameter, the counter has missed a matrix product.
    """

    def __init__(self, module: nn.Module, inputs: Iterable[Tensor], name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.missed: dict[str, None] = {}
        self.module = module
        self.parameters = {f"{name}.{key}": p for key, p in module.named_parameters()}
        # The parameters that a tensor is computed from alone.
        self.origins = WeakTensorKeyDictionary({p: {k} for k, p in self.parameters.items()})
        self.activations = WeakTensorKeyDictionary(dict.fromkeys(inputs, True))
        self.products = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors, outputs = _tensors((args, kwargs)), _tensors(result)
        origins: set[str] = set().union(*(self.origins.get(t, ()) for t in tensors))
        if not any(t in self.activations for t in tensors):
            for output in outputs:
                self.origins[output] = origins
            return result
        for output in outputs:
            self.activations[output] = True
        if func.overloadpacket not in flop_registry and func.overloadpacket not in ADDED:
            self._check_uncounted(func, args, tensors, outputs, origins)
        return result

    def _check_uncounted(
        self,
        func: Any,
        args: tuple[Any, ...],
        tensors: list[Tensor],
        outputs: list[Tensor],
        origins: set[str],
    ) -> None:
        op = func.overloadpacket
        factors: dict[str, Axes] = {}
        for tensor in tensors:
            factors |= self.products.get(tensor, {})
            if op in MULTIPLY:
                axes = frozenset(i for i, size in enumerate(reversed(tensor.shape)) if size > 1)
                factors |= dict.fromkeys(self.origins.get(tensor, ()), axes)
        if op in REDUCE:
            summed = _summed_axes(func, args)
            for name in [n for n, axes in factors.items() if axes is None or axes & summed]:
                what = f"multiplied element-wise, then {op}"
                self.missed[f"{name} ({self._owner(name)}), {what}"] = None
        elif op in MULTIPLY or op in ADD:
            self._follow(outputs, factors)
        elif op in MOVE:
            self._follow(outputs, {n: None for n in factors if _is_matrix(self.parameters[n])})
        elif "attention" in str(op) or "rnn" in str(op):
            owners = sorted({self._owner(name) for name in origins})
            self.missed[f"{op} of {' and '.join(owners) or type(self.module).__name__}"] = None
        elif op not in HARMLESS:
            for name in sorted(n for n in origins if _is_matrix(self.parameters[n])):
                self.missed[f"{name} ({self._owner(name)}), used in {op}"] = None

    def _follow(self, outputs: list[Tensor], factors: dict[str, Axes]) -> None:
        for output in outputs:
            if factors:
                self.products[output] = factors

    def _owner(self, name: str) -> str:
        path = name.split(".")[1:-1]
        return type(self.module.get_submodule(".".join(path))).__name__


def _summed_axes(func: Any, args: tuple[Any, ...]) -> frozenset[int]:
    """Axes that a reduction sums, counted from the last."""
    rank = args[0].ndim
    if func.overloadpacket in (aten.avg_pool2d, aten._adaptive_avg_pool2d):
        return frozenset({0, 1})
    given = args[1] if len(args) > 1 else None
    axes = [given] if isinstance(given, int) else (given or range(rank))
    return frozenset((rank - 1 - axis) if axis >= 0 else -1 - axis for axis in axes)


def _is_matrix(parameter: Tensor) -> bool:
    return sum(size > 1 for size in parameter.shape) > 1


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
