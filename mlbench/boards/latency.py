"""How fast the models of a board are, from the measurements of a store.

The ratio of a model to its bare backbone hardly depends on what else the machine does; the time of
the backbone does, and other work can only increase it. So a model's time is its ratio times the
shortest time of its backbone in any measurement at the same place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from mlbench.types import ModelCost, Network, RunRecord, Timing, Value


class Speed(Value):
    """How fast a model is at one place of measurement.

    Attributes:
        place: device, threads, precision and runtime.
        ms: milliseconds at batch 1; ``low`` and ``high`` are its 95 % interval. Two models whose
            intervals overlap are equally fast, as far as was measured.
        head_ms: what the head adds to the bare backbone.
        ms_16: milliseconds at batch 16; None if it was not measured.
        images_per_second: at the batch size ``best_batch``, which has the most.
        remark: ``busy`` or ``unsteady`` (see ``Timing.trouble``), or empty.
    """

    place: str
    ms: float
    low: float
    high: float
    head_ms: float
    ms_16: float | None = None
    images_per_second: float | None = None
    best_batch: int
    remark: str = ""


class Speeds:
    """The speeds of all models in a store."""

    def __init__(self, costs: Iterable[ModelCost]) -> None:
        self._costs: defaultdict[str, list[ModelCost]] = defaultdict(list)
        self._bare: dict[tuple[str, str, int], float] = {}
        for cost in costs:
            self._costs[cost.network.name].append(cost)
            for timing in cost.timings:
                key = (cost.place, cost.network.trunk, timing.batch_size)
                self._bare[key] = min(timing.bare_ms, self._bare.get(key, timing.bare_ms))

    def of(self, records: Iterable[RunRecord]) -> tuple[Speed, ...]:
        """The speeds of the model of some records, by place."""
        networks = {n.name for record in records if (n := Network.of(record)) is not None}
        found = (self.speed(cost) for name in networks for cost in self._costs.get(name, ()))
        return tuple(sorted((s for s in found if s is not None), key=lambda speed: speed.place))

    def speed(self, cost: ModelCost) -> Speed | None:
        """The speed of one measured model; None if it has no timing at batch 1."""
        timings = {timing.batch_size: timing for timing in cost.timings}
        if (first := timings.get(1)) is None:
            return None

        def ms(timing: Timing, ratio: float) -> float:
            return ratio * self._bare[cost.place, cost.network.trunk, timing.batch_size]

        many, best = timings.get(16), timings.get(cost.best_batch)
        return Speed(
            place=cost.place,
            ms=ms(first, first.ratio),
            low=ms(first, first.ratio_low),
            high=ms(first, first.ratio_high),
            head_ms=ms(first, first.ratio - 1),
            ms_16=many and ms(many, many.ratio),
            images_per_second=best and 1000 * best.batch_size / ms(best, best.ratio),
            best_batch=cost.best_batch,
            remark=first.trouble,
        )


def places_of_speed(speeds: Sequence[Speed]) -> list[tuple[int, int]]:
    """For each model, the first and the last place that it may have by its time, from 1."""
    return [
        (
            1 + sum(other.high < one.low for other in speeds),
            len(speeds) - sum(one.high < other.low for other in speeds),
        )
        for one in speeds
    ]
