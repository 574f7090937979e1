"""The latency of a model: the lowest of all its measurements.

A latency depends on the model and the machine, not on the loss, the data or the seed. Other work on
the machine can only increase it, so the lowest of several measurements is the best estimate.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mlbench.types import Efficiency, RunRecord

INITIALISATION = frozenset({"prior_bias"})
"""Options of heads that only set initial weights and do not change the computation."""


class Model(NamedTuple):
    """What determines a latency on a given machine."""

    backbone: str
    head: str
    options: str
    labels: int
    image_size: int
    parameters: int


Latencies = Mapping[Model, Mapping[str, float]]
"""Model -> place of measurement -> milliseconds for a batch of one image."""


def lowest_latencies(records: Iterable[RunRecord]) -> Latencies:
    """The lowest median at batch 1 of each model, for each place of measurement."""
    found: defaultdict[Model, dict[str, float]] = defaultdict(dict)
    for record in records:
        if (cost := record.efficiency) is not None:
            times, where = found[_model(record, cost)], place(cost, record)
            for one in cost.latency:
                if one.batch_size == 1:
                    times[where] = min(one.median_ms, times.get(where, one.median_ms))
    return found


def latencies_of(
    records: Iterable[RunRecord], latencies: Latencies
) -> tuple[tuple[str, float], ...]:
    """Return (place, milliseconds) of the model of these records for every place of measurement."""
    models = {_model(r, cost) for r in records if (cost := r.efficiency) is not None}
    times: dict[str, float] = {}
    for where, ms in (each for model in models for each in latencies.get(model, {}).items()):
        times[where] = min(ms, times.get(where, ms))
    return tuple(sorted(times.items()))


def place(cost: Efficiency, record: RunRecord) -> str:
    """Name the device, precision and CPU threads; only latencies of equal places are comparable."""
    on_cuda = record.environment.get("device") == cost.device
    threads = "" if on_cuda else f", {cost.threads} thread{'s' * (cost.threads != 1)}"
    return f"{cost.device}{threads}, {cost.precision}"


def _model(record: RunRecord, cost: Efficiency) -> Model:
    settings = record.spec.settings
    options = {k: v for k, v in settings.head_options.items() if k not in INITIALISATION}
    return Model(
        backbone=settings.backbone,
        head=settings.head,
        options=json.dumps(options, sort_keys=True, default=str),
        labels=len(record.label_names),
        image_size=cost.image_size,
        parameters=cost.parameters_backbone + cost.parameters_head,
    )
