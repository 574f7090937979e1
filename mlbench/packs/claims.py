"""Checks of the record alone: what it says must be possible and agree with itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from mlbench import registry
from mlbench.packs import recipe
from mlbench.packs.archive import PREDICTIONS, RECIPE, RECORD
from mlbench.packs.case import Case
from mlbench.packs.fields import differing
from mlbench.packs.remarks import Remark, finding, not_checked, warning
from mlbench.types import Efficiency, PackError, PluginError

OURS = "mlbench-mlic"
"""The distribution whose heads are known to learn something for every label."""
CLOCKS_DIFFER = timedelta(days=1)
"""By this much at most: zones that are set wrong, too."""
_BYTES = 4
"""Of a parameter: models are float32, whatever the precision that they are run in."""


def members(case: Case) -> Iterator[Remark]:
    """Every member has the hash that the manifest says, and none is missing."""
    said, found = case.pack.manifest.sha256, case.pack.sha256
    needed = {RECORD, RECIPE} | ({PREDICTIONS} if case.record.status == "ok" else set())
    for name in sorted(needed | set(said) | set(found)):
        if said.get(name) != found.get(name):
            yield finding(
                f"{name} is not what the manifest says",
                f"sha256 {said[name][:16]}" if name in said else "no such member",
                f"sha256 {found[name][:16]}" if name in found else "no such member",
            )
        elif name not in found:
            yield finding(f"{name} is missing", "a member of this name", "none")


def run_id(case: Case) -> Iterator[Remark]:
    """The run id is the hash of the spec, everywhere."""
    expected = case.spec.run_id
    if case.record.run_id != expected:
        yield finding(
            "the run id is not the hash of the settings: these or it were changed",
            expected,
            case.record.run_id,
        )
    if case.pack.manifest.run_id != case.record.run_id:
        yield finding(
            "the manifest is of another run than the record",
            case.record.run_id,
            case.pack.manifest.run_id,
        )
    predicted = case.pack.predicted
    if predicted is not None and predicted.run_id != case.record.run_id:
        yield finding(
            "the predictions are of another run than the record",
            case.record.run_id,
            predicted.run_id,
        )


def settings(case: Case) -> Iterator[Remark]:
    """What a person reads is what was run."""
    if case.pack.recipe is None:
        return
    try:
        described = recipe.spec(case.pack.recipe)
    except PackError as error:
        yield finding(f"{RECIPE} cannot be read", "the run's settings", error)
        return
    for name, (ran, told) in sorted(differing(case.spec, described).items()):
        yield finding(f"{RECIPE} and the record differ in {name}", repr(ran), repr(told))


def status(case: Case) -> Iterator[Remark]:
    """A run that is ok has all that such a run has; one that diverged has no score."""
    record = case.record
    ok = record.status == "ok"
    parts = {
        "scores": record.scores is not None,
        "average precisions": bool(record.average_precision),
        "efficiency": record.efficiency is not None,
        "predictions": case.pack.predicted is not None,
    }
    for part, there in parts.items():
        if there != ok:
            yield finding(
                f"a run whose status is {record.status} has {part if there else f'no {part}'}",
                part if ok else f"no {part}",
                part if there else f"no {part}",
            )
    if ok and record.error is not None:
        yield finding("a run whose status is ok has an error", "none", record.error)


def started(case: Case) -> Iterator[Remark]:
    """The time at which a run began is one, with its zone: the order of the store's history."""
    said = case.record.started
    try:
        began = datetime.fromisoformat(said)
    except ValueError:
        began = None
    if began is None or began.tzinfo is None:
        text = "the time at which the run began is none"
        yield finding(text, "as 2026-01-31T12:00:00+00:00", said)
        return
    now = datetime.now(UTC)
    if began - now > CLOCKS_DIFFER:
        text = "the run began in the future"
        yield finding(text, f"until {now.isoformat(timespec='seconds')}", said)


def track(case: Case) -> Iterator[Remark]:
    """The probe track trains nothing but a head, on features that were made once."""
    spec = case.spec
    if spec.track == "probe" and spec.settings.frozen_stages != -1:
        text = "a run of the probe track trained its backbone: frozen_stages"
        yield finding(text, -1, spec.settings.frozen_stages)
    if spec.track == "probe" and spec.settings.augmentation:
        names = ", ".join(step.name for step in spec.settings.augmentation)
        yield finding("a run of the probe track was augmented", "no augmentation", names)
    if spec.settings.selection == "test" and spec.track != "published":
        yield finding(
            "the epoch was chosen on the test split, which only the published track may",
            "selection 'last' or 'validation'",
            f"selection 'test' in the {spec.track} track",
        )


def epochs(case: Case) -> Iterator[Remark]:
    """Every epoch of the budget is there once, with a finite loss."""
    log, budget = case.record.epochs, case.spec.settings.epochs
    numbers = [one.epoch for one in log]
    ok = case.record.status == "ok"
    if ok and numbers != list(range(1, budget + 1)):
        yield finding("the log of the epochs is not that of the budget", f"1 to {budget}", numbers)
    lost = [one.epoch for one in log if not math.isfinite(one.loss)]
    if ok and lost:
        yield finding("the loss of an epoch is not finite", "a number", f"in epochs {lost}")
    chosen, way = case.record.selected_epoch, case.spec.settings.selection
    if ok and (chosen is None) != (way == "last"):
        yield finding(f"the selection is {way!r}", "an epoch" if way != "last" else None, chosen)
    if chosen is not None and chosen not in numbers:
        yield finding("the epoch that was selected is not in the log", f"one of {numbers}", chosen)


def efficiency(case: Case) -> Iterator[Remark]:
    """Costs that no model could have; whether possible ones are true is not to be seen."""
    cost = case.record.efficiency
    if cost is None:
        return
    ran = case.spec.settings.image_size, case.spec.precision
    if (cost.image_size, cost.precision) != ran:
        yield finding("costs of another input", ran, (cost.image_size, cost.precision))
    yield from _possible(cost)
    yield from _parameters(case, cost)
    yield not_checked(
        "latency and memory: only what is impossible is seen; they would have to be taken again"
    )


def _possible(cost: Efficiency) -> Iterator[Remark]:
    amounts = {
        name: float(getattr(cost, name))
        for name in ("parameters_backbone", "parameters_head", "gmacs_backbone", "gmacs_head")
    }
    for name, amount in amounts.items():
        if not (math.isfinite(amount) and amount >= 0):
            yield finding(f"{name} is impossible", "a number of at least 0", amount)
    for time in cost.latency:
        if not 0 < time.median_ms <= time.p95_ms < math.inf:
            text = f"latency at batch {time.batch_size} is impossible"
            found = f"median {time.median_ms}, p95 {time.p95_ms}"
            yield finding(text, "0 < median <= p95", found)
            continue
        speed = 1000 * time.batch_size / time.median_ms
        if not math.isclose(time.images_per_second, speed, rel_tol=1e-6):
            text = f"images a second at batch {time.batch_size} do not follow from the median"
            yield finding(text, f"{speed:.4f}", time.images_per_second)


def _parameters(case: Case, cost: Efficiency) -> Iterator[Remark]:
    settings, labels = case.spec.settings, len(case.record.label_names)
    if not (_ours("head", settings.head) and _ours("backbone", settings.backbone)):
        yield not_checked("numbers of parameters, of plugins that are not mlbench's own")
        return
    if cost.parameters_head < labels:
        text = f"{settings.head} learns at least one number a label"
        yield finding(text, f"at least {labels} parameters", cost.parameters_head)
    weights = _BYTES * (cost.parameters_backbone + cost.parameters_head) / 2**20
    if not cost.peak_memory_mb >= weights * (1 - 1e-9):
        text = "peak memory is less than the parameters take"
        yield finding(text, f"at least {weights:.1f} MiB", f"{cost.peak_memory_mb:.1f} MiB")


def _ours(kind: registry.Kind, name: str) -> bool:
    try:
        return registry.find(kind, name).distribution == OURS
    except PluginError:
        return False


def plugins(case: Case) -> Iterator[Remark]:
    """The plugins that took part are those of the settings; foreign ones are told."""
    spec, said = case.spec, case.record.environment.get("plugins")
    used: tuple[tuple[registry.Kind, str], ...] = (
        ("backbone", spec.settings.backbone),
        ("head", spec.settings.head),
        ("loss", spec.settings.loss),
        ("dataset", spec.dataset),
    )
    expected = [f"{kind} {name.partition(':')[0]}" for kind, name in used]
    if not isinstance(said, Mapping) or sorted(said) != sorted(expected):
        found = sorted(said) if isinstance(said, Mapping) else said
        yield finding("other plugins took part than the settings name", sorted(expected), found)
    for kind, name in used:
        try:
            registry.find(kind, name)
        except PluginError:
            whose = said.get(f"{kind} {name.partition(':')[0]}") if isinstance(said, Mapping) else 0
            yield not_checked(
                f"{kind} {name!r} is not installed here"
                + (f"; it is of {whose}" if whose else "")
                + ": nothing is known of it"
            )


def commit(case: Case) -> Iterator[Remark]:
    """Whoever wants to repeat a run needs its code."""
    found = case.record.commit
    if found is None:
        yield warning("the record names no commit: what code ran is not to be seen")
    elif found.endswith("-dirty"):
        yield warning(f"the code differed from its commit ({found}), so nobody else has it")
    elif not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", found):
        yield warning(f"the commit {found!r} is no commit of git in full")
    elif not found.strip("0"):
        yield warning(f"the commit {found} is git's sign for none")
