"""How long a model takes, by the least disturbed of all its measurements.

A latency follows from the model and the machine, not from the loss, the data or the seed. Other
work on the machine can only add to it, so that of several measurements the lowest is the best one.
Nobody can recompute a latency that was submitted: one is taken only where the store has none that
was measured for it, so that a submission changes no other row.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mlbench.types import Efficiency, RunRecord

STARTING = frozenset({"prior_bias"})
"""Options of heads that say where weights start, which changes nothing of the work."""


class Model(NamedTuple):
    """What a latency follows from beside the machine; sizes part what options do not tell."""

    backbone: str
    head: str
    options: str
    labels: int
    image_size: int
    parameters: int


Latencies = Mapping[Model, Mapping[str, float]]
"""Of each model: where it was measured -> milliseconds of a batch of one image."""


def lowest(records: Iterable[RunRecord]) -> Latencies:
    """The lowest median at batch 1 of each model, for each place of measurement.

    A record that was added to the store counts only where no run of the store has measured the
    model, so that a submission changes no other row.
    """
    found: defaultdict[Model, dict[str, float]] = defaultdict(dict)
    measured: set[tuple[Model, str]] = set()
    for record in sorted(records, key=lambda record: bool(record.added)):
        if (cost := record.efficiency) is None:
            continue
        model, where = _model(record, cost), place(cost, record)
        if not record.added:
            measured.add((model, where))
        elif (model, where) in measured:
            continue
        times = found[model]
        for one in cost.latency:
            if one.batch_size == 1:
                times[where] = min(one.median_ms, times.get(where, one.median_ms))
    return found


def of(records: Iterable[RunRecord], latencies: Latencies) -> tuple[tuple[str, float], ...]:
    """(place, milliseconds) of the model of these records, at every place that has measured it."""
    models = {_model(r, cost) for r in records if (cost := r.efficiency) is not None}
    times: dict[str, float] = {}
    for where, ms in (each for model in models for each in latencies.get(model, {}).items()):
        times[where] = min(ms, times.get(where, ms))
    return tuple(sorted(times.items()))


def place(cost: Efficiency, record: RunRecord) -> str:
    """Device, precision and, on a processor, threads: latencies compare only where all agree."""
    on_cuda = record.environment.get("device") == cost.device
    threads = "" if on_cuda else f", {cost.threads} thread{'s' * (cost.threads != 1)}"
    return f"{cost.device}{threads}, {cost.precision}"


def _model(record: RunRecord, cost: Efficiency) -> Model:
    settings = record.spec.settings
    options = {k: v for k, v in settings.head_options.items() if k not in STARTING}
    return Model(
        backbone=settings.backbone,
        head=settings.head,
        options=json.dumps(options, sort_keys=True, default=str),
        labels=len(record.label_names),
        image_size=cost.image_size,
        parameters=cost.parameters_backbone + cost.parameters_head,
    )
