"""Names, axes and a YAML suite -> the runs of a matrix.

``Suite`` is what a suite file holds and what the command line's flags amount to. ``expand`` makes
every combination of it, each settled by the rules of its track.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import Field, NonNegativeInt, ValidationError

from mlbench import registry
from mlbench.registry import PLURALS, Kind
from mlbench.text import unknown
from mlbench.tracks import authors_options, explain, nest, settle
from mlbench.types import (
    Graph,
    LabelNoise,
    PluginError,
    Precision,
    RunSpec,
    Splits,
    SuiteError,
    Track,
    Value,
)

LABELS_KNOWN: dict[str, tuple[str, ...]] = {
    "graph": get_args(Graph),
    "words": ("cooccurrence", "random"),
}
"""What is known about the labels, which may vary like a setting -> the names that it may have."""

SEEDS = (0, 1, 2)
"""Of a suite file that names none: what is written down to be repeated shows its spread. A command
line without ``--seeds`` has seed 0 alone, as a first look should not take three times as long."""


FLAGS = "the command line"


class Suite(Value):
    """A matrix: every combination of the axes runs.

    Attributes:
        plugins: names of any kind, sorted into the axes below.
        methods: recipes, or heads without one.
        datasets, backbones, losses, seeds: the other axes; empty takes what the track says.
        labels: only these labels take part.
        holdout: score this part of train instead of test.
        graph, words: axes, too: what heads make their label graph of, and where the label vectors
            come from; a method that uses neither runs once (see ``mlbench.build.as_it_uses``).
        label_noise: what is missing or wrong in the training labels on purpose.
        allow_missing: go on without images that cannot be used; such runs have boards of their own.
        dataset_options: data set -> options of its factory.
        settings: overrides for every run.
        per_method: method -> overrides for its runs.
        grid: dotted name of a setting -> values, each an axis (``optimizer.lr: [1e-3, 1e-4]``).
        vary: the same, but one at a time: beside each run as it is, one for every value here.

    ``grid`` and ``vary`` take ``graph`` and ``words`` like settings.
    """

    plugins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    seeds: tuple[NonNegativeInt, ...] = (0,)
    track: Track = "controlled"
    precision: Precision = "fp32"
    labels: tuple[str, ...] | None = None
    holdout: float = Field(0.0, ge=0, lt=1)
    graph: tuple[str, ...] = ("cooccurrence",)
    words: tuple[str, ...] = ("cooccurrence",)
    label_noise: LabelNoise = LabelNoise()
    allow_missing: bool = False
    dataset_options: dict[str, dict[str, Any]] = {}
    settings: dict[str, Any] = {}
    per_method: dict[str, dict[str, Any]] = {}
    grid: dict[str, tuple[Any, ...]] = {}
    vary: dict[str, tuple[Any, ...]] = {}


def read(file: Path) -> dict[str, Any]:
    """The fields of a suite file, not yet checked; three seeds where it names none.

    Raises:
        SuiteError: the file is missing, is not YAML, or has a field that suites do not have.
    """
    try:
        fields = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SuiteError(f"suite {file} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SuiteError(f"suite {file} is not YAML: {error}") from error
    if not isinstance(fields, dict):
        raise SuiteError(f"suite {file} must be a mapping of {', '.join(Suite.model_fields)}")
    for name in fields:
        if name not in Suite.model_fields:
            known = Suite.model_fields
            raise SuiteError(unknown(f"option {name!r} in {file}", str(name), known))
    return {"seeds": SEEDS, **fields}


def make(
    fields: Mapping[str, Any], origin: str = FLAGS, flags: Mapping[str, Any] | None = None
) -> Suite:
    """A suite from fields, with ``plugins`` sorted into the axes.

    Args:
        fields: of the suite.
        origin: where they come from.
        flags: those that the command line laid on top.

    Raises:
        SuiteError: a field of the wrong type, or no method at all.
        PluginError: a name that no plugin has.
    """
    try:
        suite = Suite.model_validate(dict(fields))
    except ValidationError as error:
        blamed = FLAGS if _wrong_alone(flags or {}) else origin
        raise SuiteError(f"{blamed}: {explain(error, Suite)}") from error
    axes: dict[str, list[str]] = {
        "methods": list(suite.methods),
        "datasets": list(suite.datasets),
        "backbones": list(suite.backbones),
        "losses": list(suite.losses),
    }
    for name in suite.plugins:
        axes[_axis(name)].append(name)
    unique = {axis: tuple(dict.fromkeys(names)) for axis, names in axes.items()}
    suite = suite.model_copy(update={**unique, "plugins": ()})
    _check_names(suite)
    _check_labels_known(suite)
    return suite


def _wrong_alone(fields: Mapping[str, Any]) -> bool:
    try:
        Suite.model_validate(dict(fields))
    except ValidationError:
        return True
    return False


def _axis(name: str) -> str:
    kinds = registry.kinds_of(name)
    axes = sorted({"methods" if kind in ("head", "recipe") else PLURALS[kind] for kind in kinds})
    if not axes:
        raise registry.unknown_plugin(name)
    if len(axes) > 1:
        flags = " or ".join(f"--{axis}" for axis in axes)
        raise PluginError(f"{name!r} is the name of several kinds of plugin; use {flags}")
    return axes[0]


def _check_names(suite: Suite) -> None:
    if not suite.methods:
        raise SuiteError(
            "no method to run; name at least one, e.g. --plugins gap,ssgrl (`mlbench list`)"
        )
    kinds: dict[Kind, Iterable[str]] = {
        "dataset": suite.datasets,
        "backbone": suite.backbones,
        "loss": suite.losses,
    }
    for kind, names in kinds.items():
        for name in names:
            registry.find(kind, name)
    for method in {*suite.methods, *suite.per_method}:
        if "recipe" not in registry.kinds_of(method):
            registry.find("head", method)


def _check_labels_known(suite: Suite) -> None:
    axes = {"graph": suite.graph, "words": suite.words}
    for name, known in LABELS_KNOWN.items():
        for value in (*axes[name], *suite.grid.get(name, ()), *suite.vary.get(name, ())):
            if value not in known and not (name == "words" and str(value).startswith("sha256:")):
                file = "; a file of vectors is given with --words FILE" if name == "words" else ""
                raise SuiteError(unknown(f"{name} {value!r}", str(value), known) + file)


class Refused(Value):
    """A combination that cannot run, and why."""

    label: str
    reason: str


Opener = Callable[[str, Mapping[str, Any], tuple[str, ...] | None, float], Splits]
"""(dataset, options, labels, holdout) -> its splits."""


def expand(
    suite: Suite, opener: Opener, weights: str | None = None
) -> tuple[list[RunSpec], list[Refused]]:
    """Every combination as a spec; what cannot be settled is refused by name.

    Args:
        suite: the matrix.
        opener: opens a data set; asked again for every run.
        weights: identity of the weights that every run's backbone starts from, if given.
    """
    specs: dict[str, RunSpec] = {}
    refused: list[Refused] = []
    for named in suite.datasets or ("synthetic",):
        dataset, asked = registry.recorded_as(named, suite.dataset_options.get(named, {}))
        for method, axes, departure, seed in _combinations(suite):
            options = {**authors_options(suite.track, method, dataset), **asked}
            splits = opener(dataset, options, suite.labels, suite.holdout)
            chosen = {name: value for name, value in axes.items() if value is not None}
            if weights is not None:
                chosen["weights"] = weights
            labels_known = {name: chosen.pop(name) for name in LABELS_KNOWN}
            labels_known |= {name: departure[name] for name in LABELS_KNOWN if name in departure}
            departure = {k: v for k, v in departure.items() if k not in LABELS_KNOWN}
            grid = [nest(name, chosen.pop(name)) for name in suite.grid if name in chosen]
            mine = suite.per_method.get(method, {})
            overrides = [suite.settings, chosen, mine, *grid, departure]
            try:
                settings = settle(suite.track, method, dataset, splits.card, overrides)
            except PluginError as error:
                label = f"{method} on {dataset}"
                refused.append(Refused(label=label, reason=str(error)))
                continue
            spec = RunSpec(
                method=method,
                dataset=dataset,
                dataset_options=options,
                data=splits.digest,
                labels=suite.labels,
                holdout=suite.holdout,
                incomplete=splits.incomplete,
                track=suite.track,
                seed=seed,
                precision=suite.precision,
                label_noise=suite.label_noise,
                **labels_known,
                settings=settings,
            )
            specs[spec.run_id] = spec
    return list(specs.values()), list(dict.fromkeys(refused))


def _combinations(suite: Suite) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], int]]:
    """(method, setting -> value on its axis, one departure from it, seed), for all combinations."""
    axes: dict[str, tuple[Any, ...]] = {
        "backbone": suite.backbones or (None,),
        "loss": suite.losses or (None,),
        "graph": suite.graph,
        "words": suite.words,
        **suite.grid,
    }
    departures = [{}, *(nest(name, v) for name, values in suite.vary.items() for v in values)]
    for method, values, departure, seed in itertools.product(
        suite.methods, itertools.product(*axes.values()), departures, suite.seeds
    ):
        yield method, dict(zip(axes, values, strict=True)), departure, seed
