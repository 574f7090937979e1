"""Image towers of image-text models: one embedding an image, for zero-shot scores and for heads.

Alec Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021 (CLIP); Michael Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders",
arXiv 2502.14786. Towers and weights are timm's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlbench.types import Level
from mlbench_plugins.layers.pretrained import fit, read_weights
from mlbench_plugins.layers.timm_models import (
    TimmModule,
    create,
    describe,
    refuse_unreachable,
    size_options,
)


class ImageTower(TimmModule):
    """An encoder of images: normalised images [B, 3, H, W] -> their embeddings [B, E, 1, 1].

    Args:
        model: a timm model whose output is the embedding.
        described: mean, std and pretraining.
    """

    def __init__(self, model: Any, **described: Any) -> None:
        spec = (Level(model.num_classes or model.num_features, 0),)
        super().__init__(model, spec, **described)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Return the embeddings, to be compared with those of texts, as maps of one position."""
        return (self.model(images_B3HW)[:, :, None, None],)


def timm_tower(name: str, *, weights: str = "default", image_size: int | None = None) -> ImageTower:
    """Make the image tower of a timm model, with the projection to the space of its texts.

    Args:
        name: timm's name, such as ``vit_base_patch16_clip_224.openai``.
        weights: ``default`` (timm's download), ``none``, or a file (.safetensors, .pth).
        image_size: side of the images, for models that are built for one size.

    Raises:
        PluginError: timm has no such model.
        WeightsError: the weights cannot be read or downloaded, or do not fit the model.
    """
    # None keeps the weights' own outputs, which are the embedding of an image tower.
    outputs: Mapping[str, Any] = {"num_classes": None}
    with torch.device("meta"):
        shape = create(name, pretrained=False, **outputs)
    if weights == "default":
        refuse_unreachable(name, shape)
    options = size_options(shape, image_size)
    model = create(name, pretrained=weights == "default", **outputs, **options)
    file = None if weights in ("default", "none") else read_weights(weights)
    if file is not None:
        fit(model, file, ignored=())
    return ImageTower(model, **describe(model, weights, file))


clip_base_tower = functools.partial(timm_tower, "vit_base_patch16_clip_quickgelu_224.openai")
clip_base_tower.__doc__ = "CLIP ViT-B/16: the embedding of an image that OpenAI's texts match."
siglip2_base_tower = functools.partial(timm_tower, "vit_base_patch16_siglip_256.v2_webli")
siglip2_base_tower.__doc__ = "SigLIP 2 ViT-B/16 at 256: the embedding that its texts match."
