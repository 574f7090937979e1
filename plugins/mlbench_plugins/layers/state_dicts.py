"""State dicts of released checkpoints under the names used here.

``renamed`` serves heads. Each of the other functions is made for one way of naming a trunk and
converts a state under the authors' names to the state dict of ``TimmBackbone``; tensors that do not
belong to the trunk are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

State = Mapping[str, Tensor]
Trunk = Callable[[State], dict[str, Tensor]]

ABN_EPS = 1e-5
"""What InPlaceABN adds to the absolute value of its weight."""

_RESNET = re.compile(r"(conv1|bn1|layer[1-4]\.\d+\.(conv\d|bn\d|downsample\.\d))\.\w+$")
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_TRESNET = re.compile(r"(conv1|layer[1-4]\.\d+\.(conv\d|se\.fc[12]|downsample\.\d))\.")
# A convolution and its norm are 0 and 1 of a Sequential, in one more with the blur that follows.
_CONVOLUTION = re.compile(r"(conv\d|downsample\.\d)(?:\.0)?\.0\.(?=weight$)")
_NORM = re.compile(r"(conv\d|downsample\.\d)(?:\.0)?\.1\.(?=\w+$)")


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors that ``names`` mentions, under our names; all others are left out.

    Args:
        state: authors' names, perhaps behind ``module.``, to tensors.
        names: a tensor's name there, or a module's, which stands for all that is below it -> what
            it is called here.
    """
    found = {}
    for key, value in state.items():
        bare = key.removeprefix("module.")
        for theirs, ours in names.items():
            if bare == theirs or bare.startswith(f"{theirs}."):
                found[ours + bare.removeprefix(theirs)] = value
    return found


def resnet(prefix: str = "") -> Trunk:
    """A ResNet under torchvision's names behind a prefix; its classifier is left out."""

    def convert(state: State) -> dict[str, Tensor]:
        return {
            f"model.{name}": value
            for name, value in _behind(prefix, state).items()
            if _RESNET.match(name)
        }

    return convert


def sequential_resnet(prefix: str = "features.") -> Trunk:
    """A ResNet whose children stand in one Sequential, as in ML-GCN's code."""

    def convert(state: State) -> dict[str, Tensor]:
        renamed = {}
        for name, value in _behind(prefix, state).items():
            child, _, rest = name.partition(".")
            renamed[f"{_SEQUENTIAL.get(child, child)}.{rest}"] = value
        return resnet()(renamed)

    return convert


def tresnet(prefix: str = "body.") -> Trunk:
    """A TResNet of either version; its InPlaceABN acts as a batch norm of weight |w| + 1e-5.

    Tal Ridnik et al., "TResNet: High Performance GPU-Dedicated Architecture", WACV 2021.
    """

    def convert(state: State) -> dict[str, Tensor]:
        renamed = {}
        for name, value in _behind(prefix, state).items():
            if not _TRESNET.match(name):
                continue
            ours = _CONVOLUTION.sub(r"\1.conv.", name)
            ours = _NORM.sub(r"\1.bn.", ours)
            if ours.endswith(".bn.weight"):
                value = value.abs() + ABN_EPS
            renamed[f"model.body.{ours}"] = value
        return renamed

    return convert


def timm_names(prefix: str = "backbone.model.") -> Trunk:
    """A model of timm under its own names, its classifier left out."""

    def convert(state: State) -> dict[str, Tensor]:
        found = _behind(prefix, state).items()
        left_out = ("classifier.", "head.", "fc.")
        return {f"model.{k}": value for k, value in found if not k.startswith(left_out)}

    return convert


def _behind(prefix: str, state: State) -> dict[str, Tensor]:
    """What has the prefix, without it."""
    return {k.removeprefix(prefix): value for k, value in state.items() if k.startswith(prefix)}
