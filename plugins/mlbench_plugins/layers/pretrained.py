"""Weight files: reading them safely and fitting them to a module."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mlbench.types import WeightsError

NESTED = ("state_dict", "model")


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
        """Three numbers a channel (``mean``, ``std``) from the header, else the default.

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

    A state dict may lie under ``state_dict`` or ``model``; the prefix ``module.`` is dropped.

    Raises:
        WeightsError: the file is missing, cut short, unsafe to unpickle or holds no tensors.
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
        raise WeightsError(f"{path}: cannot be read, perhaps cut short: {error}") from error
    except Exception as error:  # pickle.UnpicklingError and what broken pickles raise
        raise WeightsError(
            f"{path}: is not a plain file of tensors ({type(error).__name__}); only state dicts "
            "that torch.load(weights_only=True) accepts and .safetensors are read"
        ) from error
    return WeightFile(path, _tensors(path, state), metadata)


def fit(module: nn.Module, file: WeightFile, ignored: Collection[str]) -> None:
    """Load a file into a module, cast to the module's precision.

    Args:
        module: what is to be filled.
        file: its tensors.
        ignored: names, or prefixes of names, in the file that the module does without
            (a classifier).

    Raises:
        WeightsError: naming the keys that are missing, unexpected or of another shape.
    """
    expected = module.state_dict()
    given = {
        key: value
        for key, value in file.tensors.items()
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
            + "; ".join(f"{len(v)} {k}: {_few(v)}" for k, v in wrong.items() if v)
            + ". Give weights of this architecture, or another --backbones."
        )
    if not any(value.is_meta for value in expected.values()):  # else there is nothing to fill
        module.load_state_dict(given, strict=False)


def _tensors(path: Path, state: Any) -> dict[str, Tensor]:
    for name in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: holds no state dict, neither bare nor under {NESTED}")
    return {
        str(key).removeprefix("module."): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _few(items: Sequence[str], n: int = 3) -> str:
    return ", ".join(items[:n]) + (", ..." if len(items) > n else "")
