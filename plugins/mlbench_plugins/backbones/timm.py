"""Backbones from timm: any of its models that gives feature maps, and curated names.

Ross Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models
(doi 10.5281/zenodo.4414861).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mlbench.types import FeatureSpec, Level, PluginError, WeightsError
from mlbench_plugins.layers.pretrained import WeightFile, fit, read_weights
from mlbench_plugins.layers.timm_models import (
    TimmModule,
    create,
    describe,
    refuse_unreachable,
    size_options,
)

SHALLOWEST_STRIDE = 8
_PROBES: list[tuple[str, dict[str, Any], _Probe]] = []


def timm_backbone(
    name: str,
    *,
    weights: str = "default",
    image_size: int | None = None,
    timm_kwargs: Mapping[str, Any] | None = None,
) -> TimmBackbone:
    """Make a backbone of a timm model, without its classifier and what only that needs.

    Args:
        name: timm's name, with or without a tag of its weights (``resnet50.tv_in1k``).
        weights: ``default`` (timm's download), ``none``, or a file (.safetensors, .pth).
            The header of a .safetensors file may say ``architecture``, ``timm_kwargs``,
            ``mean`` and ``std``, and is then obeyed.
        image_size: side of the images, for models that are built for one size.
        timm_kwargs: arguments of ``timm.create_model`` that change the architecture; those in a
            file's header come on top.

    Raises:
        PluginError: timm has no such model, or it gives no feature maps.
        WeightsError: the weights cannot be read or downloaded, or do not fit the model.
    """
    file = None if weights in ("default", "none") else read_weights(weights)
    options = dict(timm_kwargs or {}) | _file_options(name, file)
    architecture = {"timm_kwargs": dict(options)} if options else {}
    probe = _probe(name, options)
    options |= size_options(probe.model, image_size)
    if weights == "default":
        refuse_unreachable(name, probe.model)
    model = create(name, pretrained=weights == "default", **options)
    for unused in probe.unused:
        model.set_submodule(unused, nn.Identity())
    config = model.pretrained_cfg
    if file is not None:
        classifier = config.get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        fit(model, file, ignored=(*names, *probe.unused))
    described = describe(model, weights, file)
    return TimmBackbone(model, probe.taken, probe.spec, architecture, **described)


class TimmBackbone(TimmModule):
    """A timm model that gives feature maps: images [B, 3, H, W] -> one map [B, D, H, W] a level.

    The levels are the intermediate maps of stride 8 and more, and last the map that the model's
    own classifier would pool (after the head convolution of a MobileNet, after the last norm of
    a transformer). A plain ViT gives the output of the blocks at 1/3, 2/3 and the end of its
    depth, folded into maps without the prefix tokens.

    Args:
        model: the timm model, without classifier.
        taken: indices of the intermediate maps that come before the deepest one.
        spec: channels and stride of every level.
        options: arguments of ``timm_backbone`` that rebuild this architecture without a file.
        described: mean, std and pretraining.
    """

    def __init__(
        self,
        model: Any,
        taken: Sequence[int],
        spec: FeatureSpec,
        options: Mapping[str, Any],
        **described: Any,
    ) -> None:
        super().__init__(model, spec, **described)
        self.taken = list(taken)
        self.options = dict(options)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Normalised images to one map a level, shallow to deep."""
        return _maps(self.model, images_B3HW, self.taken)


def _maps(model: Any, images_B3HW: Tensor, taken: list[int]) -> tuple[Tensor, ...]:
    final, maps = model.forward_intermediates(images_B3HW, indices=taken)
    if final.ndim == 3:
        height, width = maps[-1].shape[-2:]
        tokens_BND = final[:, getattr(model, "num_prefix_tokens", 0) :]
        final = tokens_BND.transpose(1, 2).unflatten(2, (height, width))
    elif getattr(model, "output_fmt", "NCHW") == "NHWC":
        final = final.permute(0, 3, 1, 2)
    return (*maps, final)


class _Probe:
    """The levels of a model and the modules that they do not need, found on the meta device."""

    def __init__(self, model: Any) -> None:
        self.model = model
        side = model.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
        images = torch.zeros(1, 3, side, side, device="meta")
        strides = [info["reduction"] for info in model.feature_info]
        self.taken = [i for i, stride in enumerate(strides[:-1]) if stride >= SHALLOWEST_STRIDE]
        if len(set(strides)) == 1:  # a plain transformer: every block has the same grid
            self.taken = [len(strides) // 3 - 1, 2 * len(strides) // 3 - 1]
        maps = _maps(model, images, self.taken)
        levels = zip(maps, [*self.taken, -1], strict=True)
        self.spec = tuple(Level(m.shape[1], strides[i]) for m, i in levels)
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(maps[-1].sum(), parameters, allow_unused=True)
        needed = {p for p, g in zip(parameters, gradients, strict=True) if g is not None}
        self.unused = list(_idle_modules(model, needed))


def _idle_modules(module: nn.Module, needed: set[Tensor], prefix: str = "") -> Iterator[str]:
    """Yield the names of the largest modules without a parameter that is needed."""
    for name, child in module.named_children():
        parameters = set(child.parameters())
        if parameters and parameters.isdisjoint(needed):
            yield prefix + name
        else:
            yield from _idle_modules(child, needed, f"{prefix}{name}.")


def _probe(name: str, options: dict[str, Any]) -> _Probe:
    """The probe of a model, which is made once in a process."""
    for known, given, probe in _PROBES:
        if (known, given) == (name, options):
            return probe
    with torch.device("meta"):
        model = create(name, pretrained=False, **options).eval()  # of one image, too
    try:
        _PROBES.append((name, dict(options), _Probe(model)))
    except Exception as error:
        raise PluginError(
            f"backbone timm:{name} gives no feature maps that a head could use "
            f"({type(error).__name__}: {error}); take a model of timm with forward_intermediates"
        ) from error
    return _PROBES[-1][2]


def _file_options(name: str, file: WeightFile | None) -> dict[str, Any]:
    if file is None:
        return {}
    built, asked = file.metadata.get("architecture"), name.partition(".")[0]
    if built is not None and built.partition(".")[0] != asked:
        raise WeightsError(
            f"{file.path}: holds weights of {built}, but the backbone is {asked}; give weights of "
            f"{asked}, or take the backbone timm:{built}"
        )
    options = file.options()
    if forbidden := sorted(set(options) & set(inspect.signature(timm.create_model).parameters)):
        raise WeightsError(f"{file.path}: its timm_kwargs must not set {forbidden}")
    return options


def _named(name: str, doc: str) -> Callable[..., TimmBackbone]:
    factory = functools.partial(timm_backbone, name)
    factory.__doc__ = doc
    return factory


resnet18 = _named("resnet18.tv_in1k", "ResNet-18 with torchvision's first ImageNet-1k weights.")
resnet50 = _named("resnet50.tv_in1k", "ResNet-50 with torchvision's first ImageNet-1k weights.")
resnet101 = _named(
    "resnet101.tv_in1k",
    "ResNet-101 with torchvision's first ImageNet-1k weights (resnet101-5d3b4d8f), which every "
    "paper here used; torchvision's later weights would not be comparable.",
)
tresnet_l = _named(
    "tresnet_l.miil_in1k",
    "TResNet-L, first version (2432 channels), ImageNet-1k at 224: the backbone of ASL. Weights "
    "trained on at 448 are timm:tresnet_l.miil_in1k_448.",
)
tresnet_v2_l = _named(
    "tresnet_v2_l.miil_in21k_ft_in1k",
    "TResNet-L, second version (2048 channels), ImageNet-21k then 1k: the architecture of "
    "ML-Decoder, whose own pretraining is not in timm.",
)
efficientnetv2_s = _named(
    "tf_efficientnetv2_s.in21k_ft_in1k", "EfficientNetV2-S, ImageNet-21k then 1k."
)
convnext_tiny = _named(
    "convnext_tiny.fb_in1k",
    "ConvNeXt-T, ImageNet-1k. Its classifier normalises after pooling; the deepest map is the "
    "one before that.",
)
swin_large_384 = _named(
    "swin_large_patch4_window12_384.ms_in22k_ft_in1k", "Swin-L/384, ImageNet-22k then 1k."
)
vit_base_384 = _named(
    "vit_base_patch16_384.augreg_in21k_ft_in1k",
    "ViT-B/16 at 384, ImageNet-21k then 1k; three levels of stride 16.",
)
mobilenetv2_100 = _named("mobilenetv2_100.ra_in1k", "MobileNetV2 1.0, ImageNet-1k.")
mobilenetv1_100 = _named("mobilenetv1_100.ra4_e3600_r224_in1k", "MobileNetV1 1.0, ImageNet-1k.")
efficientnet_lite0 = _named(
    "tf_efficientnet_lite0.in1k",
    "EfficientNet-Lite0, ImageNet-1k: no squeeze-and-excitation, made for phones.",
)
efficientnet_lite2 = _named("tf_efficientnet_lite2.in1k", "EfficientNet-Lite2, ImageNet-1k.")
tresnet_xl = _named(
    "tresnet_xl.miil_in1k_448",
    "TResNet-XL, ImageNet-1k at 448: the architecture of the largest models of ASL and ML-Decoder.",
)
convnextv2_base = _named(
    "convnextv2_base.fcmae_ft_in22k_in1k",
    "ConvNeXt V2-B, masked autoencoder, then ImageNet-22k and 1k. Weights for non-commercial use.",
)
eva02_base_448 = _named(
    "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k",
    "EVA-02-B/14 at 448, masked image modelling on ImageNet-22k, then classes of 22k and 1k.",
)
dinov3_small = _named(
    "vit_small_patch16_dinov3.lvd1689m",
    "DINOv3 ViT-S/16, self-supervised on 1,689 million images; its licence has conditions.",
)
dinov3_base = _named(
    "vit_base_patch16_dinov3.lvd1689m",
    "DINOv3 ViT-B/16, self-supervised on 1,689 million images; its licence has conditions.",
)
siglip2_base = _named(
    "vit_base_patch16_siglip_256.v2_webli", "SigLIP 2 ViT-B/16, image tower, image-text pairs."
)
siglip2_base_512 = _named(
    "vit_base_patch16_siglip_512.v2_webli", "SigLIP 2 ViT-B/16 at 512, image tower."
)
clip_base = _named(
    "vit_base_patch16_clip_quickgelu_224.openai",
    "CLIP ViT-B/16, image tower with the activation it was trained with, image-text pairs.",
)
