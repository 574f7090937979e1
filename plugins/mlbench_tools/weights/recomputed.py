"""Losses and metrics: what they give for a fixture's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench import registry
from mlbench.build import CORE_PARAMETERS
from mlbench.contracts.made_up import known_context
from mlbench.metrics.average_precision import average_precision, interpolated_average_precision
from mlbench.metrics.precision_recall import precision_recall_f1
from mlbench.types import Angles, DataError, Targets
from mlbench_tools.weights.fixtures import Fixture

PRF = ("OP", "OR", "OF1", "CP", "CR", "CF1")


def of_loss(fixture: Fixture) -> dict[str, Tensor]:
    """Value of a loss, and its gradient with respect to the logits, or the cosines, it is given.

    A loss's attribute ``fixture_names`` says which fields of fixtures are options of other names.
    """
    inputs = fixture.inputs()
    given = next((name for name in ("logits", "cosines") if name in inputs), None)
    if given is None:
        raise DataError(f"{fixture.name} has neither an input 'logits' nor 'cosines'")
    targets_BC = torch.from_numpy(inputs["targets"].astype(np.int8))
    count = targets_BC.shape[1]
    labels = known_context(np.eye(count, dtype=np.float32), images=1)
    factory = registry.find("loss", fixture.method).load()
    renamed: Mapping[str, str] = getattr(factory, "fixture_names", {})
    known = registry.options(factory, CORE_PARAMETERS)
    fields = {renamed.get(name, name): value for name, value in fixture.fields.items()}
    loss = factory(labels, **{name: value for name, value in fields.items() if name in known})
    start_BC = inputs.tensor(given).requires_grad_()
    logits_BC = start_BC
    if given == "cosines":
        logits_BC = _logits_of_cosines(start_BC, getattr(loss, "angles", Angles(scale=1.0)))
    value = loss(logits_BC, targets_BC)
    return {"loss": value, "grad": torch.autograd.grad(value, start_BC)[0]}


def _logits_of_cosines(cosines: Tensor, angles: Angles) -> Tensor:
    if angles.exponent == 1:
        return angles.scale * cosines
    return angles.scale * (2 * ((cosines + 1) / 2) ** angles.exponent - 1)


def of_metrics(fixture: Fixture) -> dict[str, Tensor]:
    """Every metric that fixtures may expect."""
    inputs = fixture.inputs()
    scores = inputs["scores"]
    targets = inputs["targets"].astype(np.int8)
    found: dict[str, Any] = {
        "ap_plain": average_precision(scores, targets),
        "ap_interpolated": 100 * interpolated_average_precision(scores, targets),
        "map_asl": 100 * average_precision(scores, targets).mean(),
        **_prf(scores, targets, ""),
    }
    if "difficult" in inputs:
        difficult = inputs["difficult"].astype(bool)
        unknown = np.where(difficult, -1, targets).astype(np.int8)
        found["ap_ignore_difficult"] = average_precision(scores, unknown)
        # The published meter counts what is difficult as absent.
        found |= _prf(scores, np.where(difficult, 0, targets).astype(np.int8), "_difficult")
    return {name: torch.as_tensor(value) for name, value in found.items()}


def _prf(scores: NDArray[np.float64], targets: Targets, ending: str) -> dict[str, Any]:
    meters: dict[str, Callable[[], dict[str, float]]] = {
        f"prf{ending}": lambda: precision_recall_f1(scores, targets),
        f"prf_top3{ending}": lambda: precision_recall_f1(scores, targets, top_k=3),
    }
    return {name: np.array([meter()[n] for n in PRF]) for name, meter in meters.items()}
