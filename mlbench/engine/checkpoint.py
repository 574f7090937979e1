"""A trained model as one safetensors file, which nothing else is needed to use.

The header has ``format`` (``mlbench-2``), ``model``, the JSON of a ``ModelInfo``, and ``digest``,
the SHA-256 of both and of the weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlbench.files import atomic_write
from mlbench.text import first_error
from mlbench.types import ModelInfo, WeightsError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Weights, and what is needed to use them."""

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
                save_file(weights, part, metadata=header)
        except SafetensorError as error:  # for example, the disk is full
            raise OSError(f"{file} could not be written: {error}") from error


def load(file: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        WeightsError: the file is missing, damaged, or not a checkpoint of mlbench.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises many types on damaged bytes
        raise WeightsError(
            f"{file} cannot be read as a checkpoint ({error}); give the checkpoint.safetensors "
            "that a run left under results/runs/"
        ) from error
    if header.get("format") not in ("mlbench-1", "mlbench-2"):
        raise WeightsError(
            f"{file} is a safetensors file but not a checkpoint of mlbench (format "
            f"{header.get('format')!r}); give a backbone's weights with --weights instead"
        )
    if header["format"] == "mlbench-1":
        log.warning("%s is of an older mlbench and has no digest: damage goes unnoticed", file)
    elif header.get("digest") != _digest(header, weights):
        raise WeightsError(
            f"{file}: changed since it was written, its content does not have the digest of its "
            "header; copy the file again, or train the model again"
        )
    try:
        return Checkpoint(weights, _info(header))
    except Exception as error:  # json and pydantic raise several types on damaged bytes
        what = first_error(error) if isinstance(error, ValidationError) else repr(error)
        raise WeightsError(
            f"{file}: its header is damaged or of a later mlbench ({what}); train the model again, "
            "or copy the file again"
        ) from error


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names and values of weights, whatever file they are in."""
    state = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return state.hexdigest()


def _digest(header: Mapping[str, str], weights: Mapping[str, torch.Tensor]) -> str:
    parts = (header["format"], header.get("model", ""), weights_digest(weights))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _info(header: Mapping[str, str]) -> ModelInfo:
    """The header's content; one of ``mlbench-1`` has an entry for each field."""
    if header["format"] == "mlbench-2":
        return ModelInfo.model_validate_json(header["model"])
    fields = ("spec", "label_names", "preprocessing")
    width = int(header.get("word_width", 300))
    return ModelInfo(**{name: json.loads(header[name]) for name in fields}, word_width=width)
