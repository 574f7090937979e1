"""Save memory in training: recompute activations, and explain batches that do not fit."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from mlbench.engine import optim
from mlbench.engine.batch_parts import BATCH_NORM
from mlbench.engine.resume import TrainingState
from mlbench.engine.train import Training, most_parts
from mlbench.text import count
from mlbench.types import BatchMemoryError


def recompute_activations(backbone: nn.Module) -> bool:
    """Recompute activations in the backward pass; False if the backbone does not support it."""
    able: list[Any] = [m for m in backbone.modules() if hasattr(m, "set_grad_checkpointing")]
    for module in able[:1]:  # it sets its parts
        module.set_grad_checkpointing()
    return bool(able)


def out_of_memory(error: Exception, state: TrainingState, training: Training) -> BatchMemoryError:
    """Make the error for a batch that does not fit, with its remedies.

    Torch's message names the memory that was allocated and requested.
    """
    settings, model = training.settings, state.learners[0].model
    number, processes = settings.grad_accumulation, training.world.size
    images = -(-min(settings.batch_size, len(training.index)) // (number * processes))
    more = min(2 * number, most_parts(settings, len(training.index), processes))
    optim.set_training_mode(model, settings)
    network = model.get_submodule("head") if training.probe else model
    norms = any(isinstance(m, BATCH_NORM) and m.training for m in network.modules())
    splits = more > number and getattr(training.loss, "separable", True)
    remedies = []
    if splits:
        norms_see = ", another run, since batch norms then see fewer images" if norms else ""
        remedies.append(f"--set grad_accumulation={more}{norms_see}")
    if not training.recompute and not training.probe:
        remedies.append("--set activation_checkpointing=true, slower")
    text = (
        f"out of memory on {training.device}: {count(images, 'image')} at {settings.image_size} "
        f"pixels {'need' if images > 1 else 'needs'} at least {_mebibytes(str(error)):,.0f} MiB; "
        f"give {'; or '.join(remedies) or 'a smaller --image-size'}"
    )
    return BatchMemoryError(text, splits and not norms)


def _mebibytes(text: str) -> float:
    """MiB allocated plus requested, from the message of torch's error."""
    sizes = re.findall(r"allocate ([\d.]+) ([KMG]iB)|([\d.]+) ([KMG]iB) is allocated by", text)
    units = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
    return sum(float(a or c) * units[b or d] for a, b, c, d in sizes)
