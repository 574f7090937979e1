"""Models of timm: creating them, loading their weights, and what these were trained on.

Ross Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models
(doi 10.5281/zenodo.4414861).
"""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, get_session, try_to_load_from_cache
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from mlbench.types import FeatureSpec, PluginError, Pretraining, WeightsError
from mlbench_plugins.layers.pretrained import WeightFile
from mlbench_plugins.layers.pretraining import of_file, of_tag

Rgb = tuple[float, float, float]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def describe(model: Any, weights: str, file: WeightFile | None) -> dict[str, Any]:
    """Fields of a backbone that describe its weights: ``mean``, ``std`` and ``pretraining``."""
    config = model.pretrained_cfg
    if file is not None:
        pretraining = of_file(file)
    elif weights == "none":
        pretraining = Pretraining(data="random")
    else:
        pretraining = of_tag(config.get("tag") or "", config.get("license"))
    source = file or WeightFile(Path(), {})
    return {
        "mean": source.triple("mean", config.get("mean", IMAGENET_MEAN)),
        "std": source.triple("std", config.get("std", IMAGENET_STD)),
        "pretraining": pretraining,
    }


class TimmModule(nn.Module, ABC):
    """A model of timm without its classifier, for normalised images [B, 3, H, W].

    Args:
        model: the timm model.
        spec: channels and stride of every level that it gives.
        mean, std: normalisation that the weights were trained with, for pixels in [0, 1].
        pretraining: what the weights were trained on.
    """

    def __init__(
        self, model: Any, spec: FeatureSpec, *, mean: Rgb, std: Rgb, pretraining: Pretraining
    ) -> None:
        super().__init__()
        self.model, self.spec = model, spec
        self.mean, self.std, self.pretraining = mean, std, pretraining

    @abstractmethod
    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Normalised images to one map a level, shallow to deep."""

    def stages(self) -> list[list[nn.Module | nn.Parameter]]:
        """Modules and loose parameters from the input to the output, as timm groups them.

        A ResNet has five: the stem and its four layers. Every parameter and buffer belongs to
        exactly one stage.
        """
        named = [*self.model.named_parameters(), *self.model.named_buffers()]
        matcher = self.model.group_matcher(coarse=True)
        stage_of = group_with_matcher(iter(named), matcher, reverse=True)
        found: list[list[nn.Module | nn.Parameter]] = [
            [] for _ in range(1 + max(stage_of.values()))
        ]
        for name, part in _whole_parts(self.model, stage_of):
            found[stage_of[name]].append(part)
        return [stage for stage in found if stage]


def _whole_parts(
    module: nn.Module, stage_of: dict[str, int], prefix: str = ""
) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Yield the largest modules within one stage, each with the name of one of its tensors."""
    names = [name for name in stage_of if name.startswith(prefix)]
    if names and len({stage_of[name] for name in names}) == 1:
        yield names[0], module
        return
    for name, parameter in module.named_parameters(recurse=False):
        yield prefix + name, parameter
    for name, child in module.named_children():
        yield from _whole_parts(child, stage_of, f"{prefix}{name}.")


def create(name: str, *, pretrained: bool, **options: Any) -> Any:
    """Create a timm model; by default without its classifier.

    Raises:
        PluginError: timm has no such model, or it does not take these options.
        WeightsError: its weights cannot be downloaded.
    """
    try:
        return timm.create_model(name, pretrained=pretrained, **{"num_classes": 0} | options)
    except Exception as error:
        if pretrained:
            raise WeightsError(_remedy(name, error)) from error
        known = timm.list_models()
        raise PluginError(
            f"timm {timm.__version__} cannot build {name!r} with {options}: {error}; "
            f"the nearest names are {', '.join(difflib.get_close_matches(name, known, n=5))}"
        ) from error


def size_options(model: Any, image_size: int | None) -> dict[str, Any]:
    """Options of timm that let a transformer take images of another size than its own."""
    accepted = inspect.signature(type(model).__init__).parameters
    if "dynamic_img_size" in accepted and "strict_img_size" not in accepted:
        return {"dynamic_img_size": True}  # positions are interpolated, so any file fits
    options: dict[str, Any] = {"strict_img_size": False} if "strict_img_size" in accepted else {}
    if "img_size" in accepted and image_size is not None:
        options["img_size"] = image_size
    return options


def refuse_unreachable(name: str, model: Any) -> None:
    """Raise WeightsError at once if the hub is out of reach; its client would try for a minute."""
    hub_id = model.pretrained_cfg.get("hf_hub_id")
    files = ("model.safetensors", "pytorch_model.bin")
    if not hub_id or any(isinstance(try_to_load_from_cache(hub_id, f), str) for f in files):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as error:
        raise WeightsError(_remedy(name, error)) from error


def _remedy(name: str, error: Exception) -> str:
    return (
        f"the weights of {name} cannot be downloaded ({type(error).__name__}: {error}); give a "
        f"file of them with `--weights FILE` (model.safetensors of "
        f"https://huggingface.co/timm/{name}, or a .pth state dict), or train from nothing with "
        "`--weights none`"
    )
