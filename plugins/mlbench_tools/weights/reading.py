"""Read files of tensors from elsewhere without running the code that they may contain.

A pickle is a program. ``torch.load(weights_only=True)`` reads most checkpoints, but not those with
numpy scalars, ``argparse.Namespace`` or strings of Python 2. The unpickler here reads these too: it
knows tensors, arrays, plain containers, numbers and strings, replaces settings objects by empty
ones, and refuses any other name.
"""

from __future__ import annotations

import codecs
import importlib
import pickle
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mlbench.types import WeightsError, state_dict_in

_ZIP = b"PK\x03\x04"
_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of a zip, and of a file of torch.save before version 1.6."""

_SETTINGS = {
    "argparse.Namespace",
    "types.SimpleNamespace",
    "easydict.EasyDict",
    "yacs.config.CfgNode",
    "addict.addict.Dict",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
}
_TYPES = {
    "collections.OrderedDict",
    "numpy.ndarray",
    "numpy.dtype",
    "torch.Size",
    "torch.device",
    *(f"builtins.{name}" for name in ("set", "frozenset", "complex", "bytearray", "int", "float")),
    *(f"builtins.{name}" for name in ("bool", "str", "list", "dict", "tuple")),
}
_FUNCTIONS = {
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
}
"""Functions that pickles call to make arrays and tensors."""
_MODULES = {
    "__builtin__": "builtins",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "pathlib._local": "pathlib",
}
"""Modules of Python 2, of older numpy and of Python 3.13, and their names today."""


class Opaque:
    """Replaces a settings object, and ignores its contents."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __setstate__(self, _: Any) -> None: ...
    def __setitem__(self, _: Any, __: Any) -> None: ...


class _Refused(pickle.UnpicklingError):
    """The file asks for a name that tensors do not need."""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Encode a text, as pickles of protocol 2 do to make bytes."""
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise _Refused(f"_codecs.encode with {encoding!r}")
    return codecs.encode(text, encoding)


class _Unpickler(pickle.Unpickler):
    """Knows the names above and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """The object of an allowed name; raises ``_Refused`` for others."""
        today = _MODULES.get(module, module)
        path = f"{today}.{name}"
        if path in _SETTINGS:
            return Opaque
        if path in _TYPES | _FUNCTIONS:
            known = getattr(importlib.import_module(today), name)
            # A new wrapper each time, as a pickle can set attributes of a function that it finds.
            return known if path in _TYPES else lambda *arguments: known(*arguments)
        if path == "_codecs.encode":
            return lambda *arguments: _encode(*arguments)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        raise _Refused(f"{module}.{name}")


# torch takes its unpickler from a module of this form.
_PICKLE: Any = types.SimpleNamespace(
    Unpickler=_Unpickler,
    load=lambda stream, **options: _Unpickler(stream, **options).load(),
    __name__="restricted",
)


def read(file: Path) -> Any:
    """The content of a ``.safetensors``, ``.npz`` or ``.npy`` file, a checkpoint or a plain pickle.

    Raises:
        WeightsError: the file is missing or truncated, or asks for a name that tensors do not need.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; give the file that the authors published")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old formats
            return _read(file)
    except _Refused as error:
        raise WeightsError(
            f"{file}: refused, it would call {error} when read; a file of weights holds tensors, "
            "arrays, plain containers, numbers and strings only. Ask its authors for a state dict"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise WeightsError(
            f"{file}: cannot be read, perhaps truncated or no checkpoint at all "
            f"({file.stat().st_size:,} bytes; {type(error).__name__}: {reason}); "
            "download it again"
        ) from error


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    if file.suffix == ".npy":
        return np.load(file, allow_pickle=False)
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    with file.open("rb") as stream:
        beginning = stream.read(len(_TORCH))
        if not beginning.startswith((_ZIP, _TORCH)):
            stream.seek(0)
            return _Unpickler(stream, encoding="latin1").load()
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it holds something else as well
        return torch.load(
            file, map_location="cpu", weights_only=False, pickle_module=_PICKLE, encoding="latin1"
        )


def state_dict(
    file: Path, content: Any, key: str | None = None, averaged: bool = False
) -> tuple[str, dict[str, Tensor]]:
    """The key of a checkpoint's state dict, empty for the top, and its tensors by name.

    Raises:
        WeightsError: there is none, or there are several and no key.
    """
    reason = " (its authors score the moving average)" if averaged else ""

    def choose(key: str) -> str:
        return f"choose one, e.g. with --key {key}{reason}"

    found, tensors = state_dict_in(content, _is_tensor, file, choose, key, averaged)
    return found, {name: torch.as_tensor(value).detach() for name, value in tensors.items()}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
    )
