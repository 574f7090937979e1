"""A backbone and a head joined: pixels in, logits out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mlbench.types import Backbone, Head, HeadOutput, Loss, Precision, Preprocessing, SuiteError


class MultiLabelModel(nn.Module):
    """uint8 images [B, 3, H, W] -> ``HeadOutput``; normalization travels with the weights.

    Args:
        backbone, head: modules that fulfil the contracts of ``mlbench.types``.
        mean: mean of the normalization, for pixels scaled to [0, 1].
        std: its standard deviation, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def features(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """The backbone's feature maps of uint8 images."""
        return self.backbone(self.normalized(images_B3HW))

    def normalized(self, images_B3HW: Tensor) -> Tensor:
        """The backbone's input for uint8 images."""
        pixels = (images_B3HW.to(self.mean.dtype) - self.mean) / self.std
        return pixels.contiguous(memory_format=torch.channels_last)

    def preprocessing(self, settings: Preprocessing) -> Preprocessing:
        """Fill the normalization of this model into a run's preprocessing."""
        mean, std = ((values.flatten() / 255).tolist() for values in (self.mean, self.std))
        return settings.model_copy(update={"mean": tuple(mean), "std": tuple(std)})

    def forward(self, images_B3HW: Tensor, known_BC: Tensor | None = None) -> HeadOutput:
        """Logits [B, C] and the head's extra losses; heads that need known labels get them."""
        return _call(self.head, self.features(images_B3HW), known_BC)


class ProbeNetwork(nn.Module):
    """The head of a model, applied to cached feature maps."""

    def __init__(self, model: MultiLabelModel) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, features: tuple[Tensor, ...], known_BC: Tensor | None = None) -> HeadOutput:
        """As ``MultiLabelModel.forward``, from feature maps."""
        return _call(self.head, features, known_BC)


def _call(head: Head, features: tuple[Tensor, ...], known_BC: Tensor | None) -> HeadOutput:
    takes = known_BC is not None and "known" in getattr(head, "needs", ())
    return head(features, *((known_BC,) if takes else ()))


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Use only bitwise reproducible algorithms of torch within the block, if ``wanted``.

    Raises:
        SuiteError: torch has none for an operator of the model on its device.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        operator, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        what = f"the model needs torch's {operator}, which does not repeat its results to the bit"
        raise SuiteError(f"{what}; leave out --deterministic") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Automatic mixed precision for bf16 and fp16; fp32 and tf32 disable it."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    half = precision in ("bf16", "fp16")
    with matrix_precision(precision), torch.autocast(device.type, dtype=dtype, enabled=half):
        yield


@contextmanager
def matrix_precision(precision: Precision) -> Iterator[None]:
    """Compute float32 products and convolutions in TF32 if that is the precision, else exactly.

    By default torch lets cuDNN convolve in TF32. Backward passes are outside autocast and need this
    around them. Both generations of torch's switches are set, as torch refuses to read the older
    ones where they disagree.
    """
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    parts: tuple[Any, ...] = (cuda.matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
    before = [part.fp32_precision == "tf32" for part in parts]

    def allow(matmul: bool, conv: bool, rnn: bool) -> None:
        cuda.matmul.allow_tf32, cudnn.allow_tf32 = matmul, conv
        for part, allowed in zip(parts, (matmul, conv, rnn), strict=True):
            part.fp32_precision = "tf32" if allowed else "ieee"

    allow(*[precision == "tf32"] * 3)
    try:
        yield
    finally:
        allow(*before)


def unsupported(precision: Precision, device: torch.device) -> str | None:
    """The reason why a device does not support a precision, and a remedy; None if it does.

    The GPU of another machine, where a cluster carries out runs, is taken to support it.
    """
    name = device.type
    fine = name == "cuda" or (precision != "tf32" and (name, precision) != ("cpu", "fp16"))
    if name == "cuda" and torch.cuda.is_available():
        with torch.cuda.device(device):
            name = torch.cuda.get_device_name()
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            fine = {"bf16": native, "tf32": torch.cuda.is_tf32_supported()}.get(precision, True)
    return None if fine else f"{name} cannot compute in {precision}; use --set precision=fp32"


def unregistered(head: nn.Module) -> tuple[str, str]:
    """An attribute with modules or tensors that do not move, train or get saved with a head.

    The second text says what it holds and the remedy; both are empty if there is none.
    """
    known = {id(x) for x in [*head.modules(), *head.parameters(), *head.buffers()]}
    of_torch = vars(nn.Module()).keys()
    for module, name in ((m, name) for m in head.modules() for name in vars(m)):
        # torch's weight_norm, spectral_norm and pruning make `weight` of `weight_...` in each pass.
        made = any(other.startswith(f"{name}_") for other, _ in module.named_parameters("", False))
        for x in () if made or name in of_torch else tree_leaves(vars(module)[name]):
            if isinstance(x, nn.Module | Tensor) and id(x) not in known:
                layers = isinstance(x, nn.Module)
                remedy = "nn.ModuleList or nn.ModuleDict" if layers else "register_buffer"
                what = f"self.{name} holds a {type(x).__name__} that torch does not register"
                return name, f"{what}, move or save; use {remedy}"
    return "", ""


def untrained(loss: Loss) -> str:
    """Name the parameters of a loss, which nothing trains, and the remedy; empty without any."""
    named = loss.named_parameters() if isinstance(loss, nn.Module) else ()
    names = [name for name, parameter in named if parameter.requires_grad]
    return f"nothing trains its {', '.join(names)}; use buffers, or a head's aux" if names else ""
