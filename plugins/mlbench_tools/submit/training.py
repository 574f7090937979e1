"""Checks of how a run was trained: as its method and track have it, and as its log tells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from mlbench import registry
from mlbench.tracks import own, recipe_of, settle
from mlbench.types import DatasetCard, PluginError, RunSpec, SuiteError
from mlbench_tools.submit.case import Case
from mlbench_tools.submit.fields import differing
from mlbench_tools.submit.remarks import Remark, finding, not_checked, softened, warning

NO_CARD = DatasetCard(title="", bibtex="", licence="", home="")
"""Of a data set that is not known here."""
SOURCES = {"features": "probe", "images": "controlled or published"}
"""Stage that a record has a time of -> tracks that have this stage."""
TOLERANCE = 1e-6
"""Of a learning rate, relative: versions of mlbench may sum in another order."""


def method(case: Case) -> Iterator[Remark]:
    """The head is the method's; nothing else of the name can be seen."""
    spec = case.spec
    if not {"head", "recipe"} & set(registry.kinds_of(spec.method)):
        yield warning(
            f"no method {spec.method!r} is installed here: whether head {spec.settings.head!r} and "
            "the other settings are its own could not be checked, and the name may be invented"
        )
        return
    try:
        head = recipe_of(spec.method).settings.head
    except PluginError as error:
        yield warning(f"the method could not be checked: {error}")
        return
    if spec.settings.head != head:
        yield finding(f"the head is not that of {spec.method}", head, spec.settings.head)


def track(case: Case) -> Iterator[Remark]:
    """Nothing was set that the track does not let differ, and the data came as it has them."""
    spec, seconds = case.spec, case.record.seconds
    if spec.checkpoint:
        return
    for stage, of in SOURCES.items():
        if stage in seconds and (spec.track == "probe") != (of == "probe"):
            text = f"a run of the {spec.track} track has a stage {stage!r}"
            yield finding(text, f"no such stage, which is of {of}", f"{seconds[stage]} s")
    try:
        yield from _departures(case, spec)
    except SuiteError as error:
        text = f"the harness refuses these settings in the {spec.track} track"
        yield finding(text, "settings that it takes", error)
    except PluginError as error:
        yield warning(f"the settings could not be held against the track: {error}")


def _departures(case: Case, spec: RunSpec) -> Iterator[Remark]:
    ran, card = spec.settings, case.card
    settle(spec.track, spec.method, spec.dataset, card or NO_CARD, [ran.model_dump()])
    if card is None or not registry.kinds_of(spec.method):
        yield not_checked(f"whether the settings are those of the {spec.track} track")
        return
    expected = own(spec.track, spec.method, spec.dataset, card, ran)
    found = {path: both for path, both in differing(expected, ran).items() if path != "head"}
    for path, (has, said) in found.items():
        text = f"{path} is not that of the {spec.track} track, which lets no run differ in it"
        remark = finding(text, has, said)
        yield remark if _of_this_version(case) else softened(remark)


def _of_this_version(case: Case) -> bool:
    """Whether recipe and budget are as they were: those of plugins of the run's versions."""
    spec, told = case.spec, case.record.environment.get("plugins")
    plugins = registry.find("head", spec.settings.head), registry.find("dataset", spec.dataset)
    return isinstance(told, Mapping) and all(
        told.get(f"{one.kind} {one.name}") == f"{one.distribution} {one.version}" for one in plugins
    )


def epochs(case: Case) -> Iterator[Remark]:
    """Every epoch of the budget is there once, as its settings have it; none of what was scored."""
    log, budget = case.record.epochs, case.spec.settings.epochs
    numbers = [one.epoch for one in log]
    chosen, way = case.record.selected_epoch, case.spec.settings.selection
    if case.spec.checkpoint:
        if numbers or chosen is not None:
            text = "a checkpoint that was only scored has epochs"
            yield finding(text, "none", numbers or chosen)
        return
    ok = case.record.status == "ok"
    if ok and numbers != list(range(1, budget + 1)):
        yield finding("the log of the epochs is not that of the budget", f"1 to {budget}", numbers)
    if not ok and len(numbers) >= budget:
        text = "a run that diverged was trained to its end"
        yield finding(text, f"less than {budget} epochs", len(numbers))
    lost = [one.epoch for one in log if not math.isfinite(one.loss)]
    if ok and lost:
        yield finding("the loss of an epoch is not finite", "a number", f"in epochs {lost}")
    if ok and (chosen is None) != (way == "last"):
        yield finding(f"the selection is {way!r}", "an epoch" if way != "last" else None, chosen)
    if chosen is not None and chosen not in numbers:
        yield finding("the epoch that was selected is not in the log", f"one of {numbers}", chosen)
    if way == "last" and any(one.mAP is not None for one in log):
        text = "epochs were scored, though none was selected"
        yield finding(text, "no mAP", [one.mAP for one in log])
    yield not_checked(
        "the log of the training: only its length and its learning rates follow from the settings; "
        "losses, gradients and times are its word"
    )


def schedule(case: Case) -> Iterator[Remark]:
    """Each epoch begins with the learning rate that the settings give for its first step."""
    from mlbench.engine.optimise import learning_rate_factor

    record, ran = case.record, case.spec.settings
    if record.epochs and record.epochs[-1].epoch > ran.epochs:
        return
    steps = max(record.train_images // ran.batch_size, 1)
    for one in record.epochs:
        factor = learning_rate_factor(
            ran.schedule, (one.epoch - 1) * steps, steps, steps * ran.epochs
        )
        if not math.isclose(one.lr, ran.optimizer.lr * factor, rel_tol=TOLERANCE):
            text = f"the learning rate of epoch {one.epoch} is not that of the schedule"
            yield finding(text, ran.optimizer.lr * factor, one.lr)
            return
