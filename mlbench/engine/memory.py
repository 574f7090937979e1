"""Save memory in training: recompute activations, and explain what does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from mlbench.engine import optim
from mlbench.engine.batch_parts import BATCH_NORM
from mlbench.engine.resume import TrainingState
from mlbench.engine.train import Training, most_parts
from mlbench.text import count
from mlbench.types import BatchMemoryError

REMEDIES = ("a smaller --image-size", "a device with more free memory (--devices)")


def recompute_activations(backbone: nn.Module) -> bool:
    """Recompute activations in the backward pass; False if the backbone does not support it."""
    able: list[Any] = [m for m in backbone.modules() if hasattr(m, "set_grad_checkpointing")]
    for module in able[:1]:  # it sets its parts
        module.set_grad_checkpointing()
    return bool(able)


def memory_error(
    error: Exception, where: str, remedies: Iterable[str] = REMEDIES, divisible: bool = False
) -> BatchMemoryError:
    """Make the error for want of memory; remedies begin with fewer --jobs if others take it."""
    others = _mebibytes(error, r"Process \d+ has SIZE")
    jobs = [f"fewer --jobs, as other processes use {others:,.0f} MiB"] if others else []
    text = f"out of memory on {where}; give {'; or '.join([*jobs, *remedies])}"
    return BatchMemoryError(text, divisible)


def out_of_memory(error: Exception, state: TrainingState, training: Training) -> BatchMemoryError:
    """Make the error for a batch of training that does not fit, with its remedies.

    Torch's message may name the memory that was allocated and requested.
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
    batch = f"{count(images, 'image')} at {settings.image_size} pixels"
    if needed := _mebibytes(error, "allocate SIZE", "SIZE is allocated by"):
        batch += f" {'need' if images > 1 else 'needs'} at least {needed:,.0f} MiB"
    where = f"{training.device}: {batch}"
    return memory_error(error, where, remedies or REMEDIES[:1], splits and not norms)


def _mebibytes(error: Exception, *phrases: str) -> float:
    """The sum of the sizes that torch's message gives in these phrases, in MiB."""
    units = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
    patterns = [phrase.replace("SIZE", r"([\d.]+) ([KMG]iB)") for phrase in phrases]
    sizes = [size for pattern in patterns for size in re.findall(pattern, str(error))]
    return sum(float(number) * units[unit] for number, unit in sizes)
