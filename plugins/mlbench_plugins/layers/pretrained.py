"""Weight files: reading them safely, fitting them to a module, and the names of released ones.

``renamed`` serves heads. Each function that returns a ``Trunk`` handles one naming scheme: the
trunk converts a state under the authors' names to the state dict of ``TimmBackbone`` and leaves
out tensors that do not belong to the backbone.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mlbench.text import shorten
from mlbench.types import WeightsError, bare_names, state_dict_in

_LOG = logging.getLogger(__name__)

State = Mapping[str, Tensor]
Trunk = Callable[[State], dict[str, Tensor]]

ABN_EPS = 1e-5
"""Constant that InPlaceABN adds to the absolute value of its weight."""

ORDER_BY_ID = dict.fromkeys(("coco", "voc2007", "nuswide", "vg500"), "official")
"""Data set -> label order, for authors who keep the order of the annotations' ids."""

_RESNET = re.compile(r"(conv1|bn1|layer[1-4]\.\d+\.(conv\d|bn\d|downsample\.\d))\.\w+$")
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_TRESNET = re.compile(r"(conv1|layer[1-4]\.\d+\.(conv\d|se\.fc[12]|downsample\.\d))\.")
# A convolution and its norm are children 0 and 1 of a Sequential; a blur adds one around it.
_CONVOLUTION = re.compile(r"(conv\d|downsample\.\d)(?:\.0)?\.0\.(?=weight$)")
_NORM = re.compile(r"(conv\d|downsample\.\d)(?:\.0)?\.1\.(?=\w+$)")


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file by name, and what a safetensors header says about them."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """``timm_kwargs`` (``pad_type=same,act_layer=relu``) as keyword arguments."""
        pairs = (p.partition("=") for p in self.metadata.get("timm_kwargs", "").split(",") if p)
        return {key.strip(): _literal(value.strip()) for key, _, value in pairs}

    def triple(self, key: str, default: Sequence[float]) -> tuple[float, float, float]:
        """Three numbers, one a channel (``mean``, ``std``), from the header, else the default.

        Raises:
            WeightsError: the header holds something else.
        """
        text = self.metadata.get(key)
        try:
            red, green, blue = default if text is None else (float(v) for v in text.split(","))
        except ValueError:
            raise WeightsError(
                f"{self.path}: the header's {key} is {text!r}; three numbers such as "
                "0.5,0.5,0.5 are needed"
            ) from None
        return red, green, blue


def read_weights(path: str | Path) -> WeightFile:
    """Read ``.safetensors``, or a state dict saved by torch (unpickled with ``weights_only``).

    A state dict may lie under any of the usual keys (see ``mlbench.types.containers``).

    Raises:
        WeightsError: the file is missing, cut short, unsafe to unpickle, or holds no state dict, or
            several.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; give a file, `default` or `none`")
    metadata: Mapping[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state: Any = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(
            f"{path}: cannot be read, perhaps cut short ({error}); get it again"
        ) from error
    except Exception as error:  # pickle.UnpicklingError and what broken pickles raise
        raise WeightsError(
            f"{path}: is not a plain file of tensors ({type(error).__name__}); only state dicts "
            "that torch.load(weights_only=True) accepts and .safetensors are read"
        ) from error

    def choose(key: str) -> str:
        alone = path.with_name(f"{path.stem}-{key}.pth")
        keys = "".join(f"['{part}']" for part in key.split("."))
        code = f"c = torch.load('{path}', weights_only=True); torch.save(c{keys}, '{alone}')"
        return f'save one alone and give that: python -c "import torch; {code}"'

    _, tensors = state_dict_in(state, lambda v: isinstance(v, Tensor), path, choose)
    return WeightFile(path, tensors, metadata)


def fit(module: nn.Module, file: WeightFile, ignored: Collection[str]) -> None:
    """Load a file into a module, cast to the module's precision.

    Args:
        module: the module to fill.
        file: the tensors.
        ignored: names, or prefixes of names, that are in the file and not needed (a classifier).

    Raises:
        WeightsError: keys are missing, unexpected or of another shape, or values are not finite.
    """
    expected = module.state_dict()
    forms = list(bare_names(file.tensors))
    dropped, tensors = next((one for one in forms if expected.keys() & one[1]), forms[0])
    if dropped:
        _LOG.warning("%s: names are read without %s", file.path, dropped)
    given = {
        key: value
        for key, value in tensors.items()
        if not any(key == name or key.startswith(f"{name}.") for name in ignored)
    }
    # Files older than torch 0.4.1 have no such counters, and nothing here reads them.
    missing = [k for k in expected if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in given if k not in expected]
    shapes = [
        f"{k} {tuple(given[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in expected
        if k in given and given[k].shape != expected[k].shape
    ]
    if missing or unexpected or shapes:
        wrong = {"missing keys": missing, "unexpected keys": unexpected, "other shapes": shapes}
        raise WeightsError(
            f"{file.path}: does not fit {type(module).__name__}: "
            + "; ".join(f"{len(v)} {k}: {shorten(v, 3)}" for k, v in wrong.items() if v)
            + ". Give weights of this architecture, or another --backbones."
        )
    if broken := [k for k, v in given.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise WeightsError(
            f"{file.path}: {shorten(broken, 3)} has values that are NaN or infinite; give weights "
            "of a training that did not diverge"
        )
    if not any(value.is_meta for value in expected.values()):  # else there is nothing to fill
        module.load_state_dict(given, strict=False)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# ----------------------------------------------------------------------------------- released names
def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors that ``names`` mentions, under our names; all others are left out.

    Args:
        state: authors' names, perhaps behind ``module.``, to tensors.
        names: the authors' name of a tensor, or of a module and all that is in it -> our name.
    """
    found = {}
    for key, value in state.items():
        bare = key.removeprefix("module.")
        for theirs, ours in names.items():
            if bare == theirs or bare.startswith(f"{theirs}."):
                found[ours + bare.removeprefix(theirs)] = value
    return found


def renamed_by(patterns: Mapping[str, str], state: State) -> dict[str, Tensor]:
    """Like ``renamed``, but by regular expressions of the beginnings of names."""
    found = {}
    for key, value in state.items():
        for pattern, ours in patterns.items():
            name, hits = re.subn(f"^{pattern}", ours, key.removeprefix("module."))
            if hits:
                found[name] = value
    return found


def resnet(prefix: str = "") -> Trunk:
    """A ResNet under torchvision's names behind a prefix; its classifier is left out."""

    def convert(state: State) -> dict[str, Tensor]:
        found = _behind(prefix, state).items()
        return {f"model.{k}": value for k, value in found if _RESNET.match(k)}

    return convert


def sequential_resnet(prefix: str = "features.") -> Trunk:
    """A ResNet whose children stand in one Sequential, as in ML-GCN's code."""

    def convert(state: State) -> dict[str, Tensor]:
        return resnet()(renamed(_behind(prefix, state), _SEQUENTIAL))

    return convert


def tresnet(prefix: str = "body.") -> Trunk:
    """A TResNet of either version; its InPlaceABN acts as a batch norm of weight |w| + 1e-5.

    Tal Ridnik et al., "TResNet: High Performance GPU-Dedicated Architecture", WACV 2021.
    """

    def convert(state: State) -> dict[str, Tensor]:
        found = {}
        for name, value in _behind(prefix, state).items():
            if not _TRESNET.match(name):
                continue
            ours = _CONVOLUTION.sub(r"\1.conv.", name)
            ours = _NORM.sub(r"\1.bn.", ours)
            if ours.endswith(".bn.weight"):
                value = value.abs() + ABN_EPS
            found[f"model.body.{ours}"] = value
        return found

    return convert


def timm_names(prefix: str = "backbone.model.") -> Trunk:
    """A model of timm under its own names, its classifier left out."""

    def convert(state: State) -> dict[str, Tensor]:
        found = _behind(prefix, state).items()
        left_out = ("classifier.", "head.", "fc.")
        return {f"model.{k}": value for k, value in found if not k.startswith(left_out)}

    return convert


def _behind(prefix: str, state: State) -> dict[str, Tensor]:
    """The tensors whose names have the prefix, under their names without it."""
    return {k.removeprefix(prefix): value for k, value in state.items() if k.startswith(prefix)}
