"""Forecast the time, memory and disk that missing runs of a matrix take on this machine.

The rates of a run are those of records of its kind. Without any, it is rehearsed: carried out on a
few images, into a folder that is deleted, and its record is kept in the cache.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mlbench.build import meta_model
from mlbench.data.cache_entries import entries
from mlbench.data.decode import IGNORE, REMEDY
from mlbench.data.open import open_run
from mlbench.engine.cost import device_name
from mlbench.engine.distributed import World
from mlbench.engine.features import levels_read
from mlbench.engine.train import finish
from mlbench.executors.worker import Events
from mlbench.numbers import outdated
from mlbench.one_run import run
from mlbench.preflight import make_label_context
from mlbench.store import Store
from mlbench.text import count
from mlbench.types import Places, RunRecord, RunSpec, Splits

IMAGES = 16
"""Images of each split in a rehearsal on the CPU; a rehearsal on a GPU has two batches."""
LIMIT = 30.0
"""Seconds after which no other rehearsal begins."""
CACHED = 1e-3
"""Seconds an image below which feature maps may have been read, not computed."""


@dataclass(frozen=True)
class _Estimate:
    """The estimated cost of one run.

    Attributes:
        seconds: estimates by the fastest, the median and the slowest epoch of its kind.
        records: the records that the estimate is made from.
        cached: bytes of feature maps that the run makes.
        written: bytes of its results.
        rough: True if made by a rehearsal, or records of other data, heads or process numbers.
    """

    seconds: tuple[float, float, float]
    records: Sequence[RunRecord]
    cached: int
    written: int
    rough: bool

    def most(self, what: str) -> float:
        """The largest of a field in MiB over all phases of the records."""
        used = [phase for one in self.records for phase in one.resources.values()]
        return max((getattr(phase, what) or 0.0 for phase in used), default=0.0)


def forecast(
    specs: Sequence[RunSpec], places: Places, threads: int | None
) -> tuple[dict[str, float], list[str]]:
    """Estimate the time, memory and disk of missing runs.

    Each has this number of CPU ``threads``; None leaves torch's default.

    Returns:
        Run id -> seconds, for runs with an estimate; and lines of text on time, memory and disk.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    logging.disable(logging.WARNING)  # of a few images they mislead, and the plan told the rest
    began, rehearsals = time.monotonic(), Store(places.cache / "rehearsals")
    known = list(_like_here(rehearsals, places))
    tried = {_kind(one.spec) for one in known}
    known += _like_here(Store(places.results), places)
    made = {(entry.purpose, entry.what.rpartition(", ")[2]) for entry in entries(places.cache)}
    found: dict[str, _Estimate] = {}
    opened: dict[tuple[str, str], Splits] = {}
    lines, rehearsed = [], 0
    for spec in specs:
        maps = spec.cached_for, spec.settings.backbone
        fills = spec.track == "probe" and maps not in made
        like = [one for one in known if _kind(one.spec) == _kind(spec)]
        only_read = fills and _map_seconds(like) < CACHED and _kind(spec) not in tried
        if (only_read or not like) and time.monotonic() - began < LIMIT:
            try:
                like.append(_rehearse(spec, places, rehearsals))
                known.append(like[-1])
                rehearsed += 1
            except (Exception, SystemExit) as error:  # of any plugin; the run itself will tell more
                text = f"not estimated: {spec.title}: {type(error).__name__}: {error}"
                lines.append(text.replace(REMEDY, IGNORE))
        near = like or [one for one in known if _kind(one.spec)[1:] == _kind(spec)[1:]]
        if near:
            edition = spec.data, spec.settings.selection
            if edition not in opened:
                opened[edition] = open_run(spec, places)
            found[spec.run_id] = _estimate(spec, opened[edition], near, fills, places)
            made.add(maps)
    if rehearsed:
        lines.insert(0, f"{count(rehearsed, 'rehearsal')} took {time.monotonic() - began:.0f} s")
    lines = [*_in_words(list(found.values()), len(specs)), *lines]
    return {run_id: one.seconds[1] for run_id, one in found.items()}, lines


def _kind(spec: RunSpec) -> tuple[Any, ...]:
    """The settings that the rates of a run depend on; the head comes first."""
    one, probe = spec.settings, spec.track in ("probe", "zero_shot")
    return one.head, one.backbone, probe, one.image_size, one.batch_size, spec.precision


def _like_here(store: Store, places: Places) -> Iterable[RunRecord]:
    """Yield the records of a store that were made on this kind of machine by this code."""
    here = device_name(torch.device(places.device)), torch.get_num_threads()
    for one in store.records():
        cost = one.efficiency
        like = cost and (cost.device, cost.threads) == here
        if like and one.resources and not outdated(one.numbers):
            yield one


def _map_seconds(records: Iterable[RunRecord]) -> float:
    """The largest time of feature maps in these records, in seconds an image."""
    return max((one.seconds.get("features", 0.0) / _images(one) for one in records), default=0.0)


def _images(one: RunRecord) -> int:
    return one.train_images + one.validation_images + one.test_images


def _rehearse(spec: RunSpec, places: Places, kept: Store) -> RunRecord:
    """Carry out a run on a few images, and keep its record."""
    changes = {"epochs": min(spec.settings.epochs, 2), "selection": "last"}
    settings = spec.settings.model_copy(update=changes)
    short = spec.model_copy(update={"settings": settings, "processes": 1})
    many = 2 * settings.batch_size if places.device.startswith("cuda") else IMAGES
    places.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=places.cache) as folder:
        where = {"results": Path(folder) / "results", "cache": Path(folder) / "cache"}
        own = places.model_copy(update={**where, "keep": "none", "cache_limit": None})
        own.cache.mkdir()
        for entry in places.cache.glob("[!.]*"):
            if entry.name not in ("features", "images"):
                (own.cache / entry.name).symlink_to(entry.resolve())
        heard: list[tuple[float, Any]] = []
        events = Events(World(), lambda *event: heard.append((time.monotonic(), event)))
        record, _ = finish(run(short, own, World(), events, "", images=many))
    phases = [(when, event[1]) for when, event in heard if event[0] == "phase"]
    for (began, name), (ended, _) in pairwise(phases):
        if name == "feature maps of test":  # those of train were made first, and warmed up
            features = (ended - began) / record.test_images * _images(record)
            seconds = record.seconds | {"features": features}
            record = record.model_copy(update={"seconds": seconds})
    kept.write(record)
    return record


def _estimate(
    spec: RunSpec, splits: Splits, like: Sequence[RunRecord], fills: bool, places: Places
) -> _Estimate:
    settings, train, test = spec.settings, len(splits.train), len(splits.test)
    held = len(splits.validation or ())
    scored = test + settings.epochs * {"test": test, "validation": held}.get(settings.selection, 0)
    per_image = ("training", "evaluation", "features")

    def typical(value: Callable[[RunRecord], float]) -> float:
        return median(map(value, like))

    fixed = typical(lambda one: sum(s for n, s in one.seconds.items() if n not in per_image))
    evaluation = typical(lambda one: one.seconds.get("evaluation", 0.0) / one.test_images)
    rest, cached = fixed + evaluation * scored, 0
    if fills:
        rest += _map_seconds(like) * (train + test + held)
        cached = _map_bytes(spec, splits, places) * (train + test + held)
    speeds = sorted(log.images_per_second for one in like for log in one.epochs) or [1.0]
    work = settings.epochs * train
    cost = like[0].efficiency
    weights = cost.parameters_backbone + cost.parameters_head if cost is not None else 0
    return _Estimate(
        seconds=tuple(rest + work / one for one in (speeds[-1], median(speeds), speeds[0])),  # type: ignore[arg-type]
        records=like,
        cached=cached,
        written=5 * test * len(splits.names) + 4 * weights * (places.keep != "none"),
        rough=not any(
            one.train_images == train
            and _kind(one.spec) == _kind(spec)
            and one.spec.processes == spec.processes
            for one in like
        ),
    )


def _map_bytes(spec: RunSpec, splits: Splits, places: Places) -> int:
    """Bytes of the feature maps that a head reads of one image, in half precision."""
    labels, _ = make_label_context(spec, splits, places)
    model, _ = meta_model(spec.settings, labels)
    side = spec.settings.image_size
    maps = model.backbone(torch.empty(1, 3, side, side, device="meta"))
    return sum(2 * maps[i].numel() for i in levels_read(model.head, maps))


def _in_words(found: Sequence[_Estimate], asked: int) -> Iterable[str]:
    if not found:
        return
    least, middle, most = (
        timedelta(seconds=round(sum(one.seconds[i] for one in found))) for i in range(3)
    )
    runs = f"{len(found)} of {count(asked, 'missing run')}, one after another"
    yield f"estimated time of {runs}: {middle} ({least} to {most} by measured epochs)"
    device = max(one.most("device_memory_mb") for one in found)
    of_device = f", of the device {device:,.0f} MiB" if device else ""
    memory = f"memory of a run: {max(one.most('memory_mb') for one in found):,.0f} MiB{of_device}"
    written, cached = (sum(getattr(one, n) for one in found) / 1e6 for n in ("written", "cached"))
    yield f"{memory}; disk: {written:,.0f} MB of results, {cached:,.0f} MB of feature maps"
    if rough := sum(one.rough for one in found):
        yield f"rough for {count(rough, 'run')}: only a rehearsal or similar runs were measured"
