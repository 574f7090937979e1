"""The trials of a tuning: which are made, what they scored, which is best."""

from __future__ import annotations

import functools
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from mlbench import registry
from mlbench.cli.console import writing
from mlbench.files import atomic_write
from mlbench.suite import Suite, describes_labels
from mlbench.suite_file import FILES
from mlbench.tracks import merge, nest, shared_settings
from mlbench.types import Optimizer, RunRecord, Scores, SuiteError

RATE = "optimizer.lr"
ONE_ONLY = ("datasets", "backbones", "losses", "graph", "words")
"""Axes of a suite that must not vary: a rate belongs to one combination."""


@dataclass(frozen=True)
class Trial:
    """One point of the grid for one method.

    Attributes:
        settings: dotted name -> value of the settings that are tried.
        mAP: percent, mean over the seeds; None if a seed diverged.
        low, high: its 95 % interval over images.
        remark: ``best``, and which of its values are at an edge of the grid; empty for others.
    """

    method: str
    settings: dict[str, Any]
    mAP: float | None = None  # noqa: N815 - the usual spelling
    low: float = 0.0
    high: float = 0.0
    remark: str = ""

    @property
    def interval(self) -> str:
        """``[47.1, 52.0]``, within 0 to 100."""
        return f"[{max(self.low, 0):.1f}, {min(self.high, 100):.1f}]"


def add_rates(suite: Suite, trials: int) -> Suite:
    """The suite of all trials: ``trials`` rates around the track's, times its grid.

    Raises:
        SuiteError: it scores test images, or varies what cannot be tuned together.
    """
    if suite.track == "published":
        raise SuiteError("the published track has its papers' settings; tune controlled or probe")
    if not suite.holdout:
        raise SuiteError("--holdout 0 would choose settings on test images; hold out a share")
    several = [name for name in ONE_ONLY if len(getattr(suite, name)) > 1]
    if several or suite.vary:
        what = ", ".join([*several, *(["vary"] if suite.vary else [])])
        raise SuiteError(
            f"a rate belongs to one data set, backbone and loss: give one value for {what}, and "
            "tune the others by commands of their own"
        )
    axes = suite.grid
    if labels := list(filter(describes_labels, axes)):
        raise SuiteError(f"{', '.join(labels)} cannot be tuned; --grid takes settings")
    if RATE not in axes:
        axes = {RATE: rates(_rate(suite), trials), **axes}
    return suite.model_copy(update={"grid": axes, "keep": "none"})


def _rate(suite: Suite) -> float:
    """The track's learning rate, which is the same for all methods."""
    dataset = (suite.datasets or ("synthetic",))[0]
    card = registry.dataset_card(registry.find("dataset", dataset))
    if card is None:
        raise SuiteError(f"{dataset} has no card before it is opened; give --grid {RATE}=1e-4,1e-3")
    fields = merge(shared_settings(suite.track, card), suite.settings)
    return Optimizer.model_validate(fields.get("optimizer", {})).lr


def rates(centre: float, number: int) -> tuple[float, ...]:
    """Learning rates a factor of about 3 apart, the centre among them, in ascending order."""
    steps = range(-((number - 1) // 2), number // 2 + 1)
    return tuple(float(f"{centre * 10 ** (k / 2):.1g}") if k else centre for k in steps)


def collect(records: Sequence[RunRecord], names: Sequence[str]) -> list[Trial]:
    """The trials in the order of methods and values, each method's best with a remark."""
    groups: dict[tuple[str, str], list[tuple[dict[str, Any], Scores | None]]] = {}
    for record in records:
        fields = record.spec.settings.model_dump(mode="json")
        found = {n: functools.reduce(dict.__getitem__, n.split("."), fields) for n in names}
        runs = groups.setdefault((record.spec.method, repr(found)), [])
        runs.append((found, record.scores))
    trials = [_trial(method, runs) for (method, _), runs in groups.items()]
    trials.sort(key=lambda trial: (trial.method, *map(_sortable, trial.settings.values())))
    methods = groupby(trials, key=lambda trial: trial.method)
    return [trial for _, group in methods for trial in _remarked(list(group))]


def _sortable(value: Any) -> tuple[float, str]:
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def _trial(method: str, runs: Sequence[tuple[dict[str, Any], Scores | None]]) -> Trial:
    settings, scores = runs[0][0], [scores for _, scores in runs if scores]
    if len(scores) < len(runs):
        return Trial(method, settings)
    names = ("mAP", "mAP_low", "mAP_high")
    mean, low, high = (statistics.fmean(getattr(s, name) for s in scores) for name in names)
    return Trial(method, settings, mean, low, high)


def _remarked(trials: list[Trial]) -> list[Trial]:
    """Mark the best trial of a method, and name those of its values that are at an edge."""
    scored = [trial for trial in trials if trial.mAP is not None]
    if not scored:
        return trials
    best = max(scored, key=lambda trial: trial.mAP or 0.0)
    edges = []
    for name, chosen in best.settings.items():
        tried = sorted((trial.settings[name] for trial in trials), key=_sortable)
        if isinstance(chosen, float) and tried[0] != tried[-1]:
            ends = (("lowest", tried[0]), ("highest", tried[-1]))
            at = [end for end, value in ends if value == chosen]
            edges += [f"the {end} {name} tried, a better one may lie beyond" for end in at]
    remark = "; ".join(["best", *edges])
    return [replace(t, remark=remark) if t is best else t for t in trials]


def winners(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Method -> its best trial; methods without a trial that converged are left out."""
    return {trial.method: trial for trial in trials if trial.remark}


def write_suite(file: Path, suite: Suite, best: Mapping[str, Trial], command: str) -> None:
    """Write the suite with the best settings of each method, to be run on the test images.

    Raises:
        SuiteError: the file cannot be written.
    """
    left_out = {"seeds", "holdout", "holdout_fold", "grid", "methods", "precision"}
    fields = suite.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    per_method = suite.per_method
    for method, trial in best.items():
        for name, value in trial.settings.items():
            per_method = merge(per_method, {method: nest(name, value)})
    for name in FILES:
        if (given := getattr(suite, name)) is not None and Path(given).exists():
            fields[name] = _relative(Path(given), file)
    if "words" in fields:
        words = fields["words"]
        fields["words"] = [_relative(Path(w), file) if Path(w).is_file() else w for w in words]
    options = {_dataset(name, file): chosen for name, chosen in suite.dataset_options.items()}
    named = {"datasets": [_dataset(name, file) for name in suite.datasets]}
    fields |= named | ({"dataset_options": options} if options else {})
    fields = {"methods": list(best), **fields, "precision": suite.precision}
    scores = "".join(f"#   {m}: mAP {t.mAP:.2f} {t.interval}\n" for m, t in best.items())
    head = f"# Tuned by: {' '.join(command.split())}\n# On held-out images:\n{scores}"
    text = yaml.safe_dump({**fields, "per_method": per_method}, sort_keys=False)
    with writing(file, "; name another file with --out"), atomic_write(file) as part:
        part.write_text(head + text, encoding="utf-8")


def _dataset(name: str, file: Path) -> str:
    """``manifest:photos.csv`` relative to the suite; any other name as it is."""
    kind, _, argument = name.partition(":")
    there = argument and Path(argument).expanduser().exists()
    return f"{kind}:{_relative(Path(argument), file)}" if there else name


def _relative(path: Path, file: Path) -> str:
    return os.path.relpath(path.expanduser(), file.parent)
