"""A backbone and a head joined: pixels in, logits out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mlbench.types import HeadOutput, Precision

if TYPE_CHECKING:
    from mlbench.types import Backbone, Head, Preprocessing


class MultiLabelModel(nn.Module):
    """uint8 images [B, 3, H, W] -> ``HeadOutput``; normalization travels with the weights.

    Args:
        backbone, head: modules that fulfil the contracts of ``mlbench.types``.
        mean: of the normalization, on pixels scaled to [0, 1].
        std: likewise.
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
        """The preprocessing of some settings with the normalization of this model filled in."""
        mean, std = ((values.flatten() / 255).tolist() for values in (self.mean, self.std))
        return settings.model_copy(update={"mean": tuple(mean), "std": tuple(std)})

    def forward(self, images_B3HW: Tensor) -> HeadOutput:
        """Logits [B, C] and the head's extra losses."""
        return self.head(self.features(images_B3HW))


class ProbeNetwork(nn.Module):
    """The head of a model, for feature maps that were computed before."""

    def __init__(self, model: MultiLabelModel) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """Feature maps -> logits."""
        return self.head(features)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Automatic mixed precision; fp32 switches it off."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
