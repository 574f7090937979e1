"""A trained model as one self-contained safetensors file.

The header has ``format`` (``mlbench-2``), ``model`` (the JSON of a ``ModelInfo``) and ``digest``
(the SHA-256 of format, model and weights).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mlbench.files import atomic_write
from mlbench.text import first_error
from mlbench.types import ModelInfo, Settings, WeightsError


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and the information needed to use them."""

    weights: dict[str, torch.Tensor]
    info: ModelInfo

    def save(self, file: Path) -> None:
        """Write the file atomically.

        Raises:
            OSError: it cannot be written.
        """
        header = {"format": "mlbench-2", "model": self.info.model_dump_json()}
        header["digest"] = _digest(header, self.weights)
        # safetensors refuses tensors that share memory.
        weights = {name: t.detach().cpu().clone().contiguous() for name, t in self.weights.items()}
        try:
            with atomic_write(file) as part:
                part.touch()
                mode = part.stat().st_mode  # safetensors makes files that nobody else can read
                save_file(weights, part, metadata=header)
                part.chmod(mode)
        except SafetensorError as error:  # for example, the disk is full
            raise OSError(f"{file} could not be written: {error}") from error


def load(file: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        WeightsError: the file is missing, damaged, or not a checkpoint of mlbench.
    """
    try:
        str(file).encode()
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except UnicodeEncodeError as error:  # safetensors opens no such file
        raise WeightsError(f"{file}: this path is not UTF-8; rename the folder") from error
    except Exception as error:  # safetensors raises many types on damaged bytes
        raise WeightsError(
            f"{file} cannot be read as a checkpoint ({error}); give a run's folder, its "
            "checkpoint.safetensors, or the folder that `mlbench import` wrote"
        ) from error
    if header.get("format") != "mlbench-2":
        raise WeightsError(
            f"{file} is a safetensors file but not a checkpoint of mlbench (format "
            f"{header.get('format')!r}); give a backbone's weights with --weights instead"
        )
    if header.get("digest") != _digest(header, weights):
        raise WeightsError(
            f"{file}: changed since it was written, its content does not have the digest of its "
            "header; copy the file again, or train the model again"
        )
    try:
        return Checkpoint(weights, ModelInfo.model_validate_json(header["model"]))
    except Exception as error:  # json and pydantic raise several types on damaged bytes
        what = first_error(error) if isinstance(error, ValidationError) else repr(error)
        raise WeightsError(
            f"{file}: its header is damaged or of a later mlbench ({what}); train the model again, "
            "or copy the file again"
        ) from error


def backbone_weights(
    init: Checkpoint, backbone: nn.Module, settings: Settings
) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's backbone, for a model that starts from it.

    Raises:
        WeightsError: the model has a different backbone.
    """
    theirs = init.info.spec.settings
    wanted = {f"backbone.{name}": t.shape for name, t in backbone.state_dict().items()}
    found = {name: t for name, t in init.weights.items() if name.startswith("backbone.")}
    same = theirs.backbone == settings.backbone
    if not same or {name: t.shape for name, t in found.items()} != wanted:
        raise WeightsError(
            f"--init: its backbone is {theirs.backbone} at {theirs.image_size} pixels, and does "
            f"not fit {settings.backbone} at {settings.image_size}; give --backbones "
            f"{theirs.backbone} --image-size {theirs.image_size}"
        )
    return found


def head_weights(
    init: Checkpoint, head: nn.Module, axes: Mapping[str, Sequence[int]], names: Sequence[str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The initial weights that a head takes from a checkpoint with the same head.

    Args:
        init: the checkpoint.
        head: the new head, with its initial weights.
        axes: name of a tensor of the head -> its axes over labels.
        names: the head's labels.

    Returns:
        The tensors without a label axis whose shapes agree; and the parameters with label axes, in
        which labels of equal names have the checkpoint's values. Buffers over labels (graphs, word
        vectors) follow the new data and are left out.
    """
    old = init.info.label_names
    new_rows = [i for i, name in enumerate(names) if name in old]
    old_rows = [old.index(names[i]) for i in new_rows]
    parameters = {name for name, _ in head.named_parameters()}
    whole, rows = {}, {}
    for name, ours in head.state_dict().items():
        theirs, along = init.weights.get(f"head.{name}"), axes[name]
        fitting = [len(old) if i in along else n for i, n in enumerate(ours.shape)]
        if theirs is None or list(theirs.shape) != fitting:
            continue
        if not along:
            whole[f"head.{name}"] = theirs
        elif name in parameters and all(ours.shape[i] == len(names) for i in along):
            mixed = ours.clone()
            mixed[_grid(ours.shape, along, new_rows)] = theirs[_grid(fitting, along, old_rows)]
            rows[f"head.{name}"] = mixed
    return whole, rows


def _grid(
    shape: Sequence[int], axes: Sequence[int], rows: Sequence[int]
) -> tuple[torch.Tensor, ...]:
    """An index that selects these rows along these axes, and everything along the others."""
    taken = [rows if i in axes else range(n) for i, n in enumerate(shape)]
    return tuple(torch.from_numpy(one) for one in np.ix_(*(np.array(t, np.int64) for t in taken)))


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names and values of weights, independent of the file format."""
    state = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()


def _digest(header: Mapping[str, str], weights: Mapping[str, torch.Tensor]) -> str:
    parts = (header["format"], header.get("model", ""), weights_digest(weights))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
