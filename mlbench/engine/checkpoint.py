"""A trained model as one safetensors file; its header says how to use the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlbench.files import atomic_write
from mlbench.types import Preprocessing, RunSpec, WeightsError


@dataclass(frozen=True)
class Checkpoint:
    """Weights, the run that trained them, and what is needed to use them.

    Attributes:
        label_names: C names, the columns of the logits.
        preprocessing: of the images, with ``mean`` and ``std`` filled in.
        word_width: E of the label embeddings that the head was made with.
    """

    weights: dict[str, torch.Tensor]
    spec: RunSpec
    label_names: tuple[str, ...]
    preprocessing: Preprocessing
    word_width: int = 300

    def save(self, file: Path) -> None:
        """Write the file atomically.

        Raises:
            OSError: it cannot be written.
        """
        header = {
            "format": "mlbench-1",
            "spec": self.spec.model_dump_json(),
            "label_names": json.dumps(self.label_names),
            "preprocessing": self.preprocessing.model_dump_json(),
            "word_width": str(self.word_width),
        }
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
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{file} cannot be read as a checkpoint ({error}); give the checkpoint.safetensors "
            "that a run left under results/runs/"
        ) from error
    if header.get("format") != "mlbench-1":
        raise WeightsError(
            f"{file} is a safetensors file but not a checkpoint of mlbench (format "
            f"{header.get('format')!r}); give a backbone's weights with --weights instead"
        )
    return Checkpoint(
        weights=weights,
        spec=RunSpec.model_validate_json(header["spec"]),
        label_names=tuple(json.loads(header["label_names"])),
        preprocessing=Preprocessing.model_validate_json(header["preprocessing"]),
        word_width=int(header.get("word_width", 300)),
    )
