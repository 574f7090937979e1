"""Names, axes and a YAML suite -> the runs of a matrix.

``Suite`` is what a suite file holds and what the command line's flags amount to. ``expand`` makes
every combination of it, each settled by the rules of its track.
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import NonNegativeInt, ValidationError

from mlbench import registry
from mlbench.registry import PLURALS, Kind
from mlbench.types import (
    PluginError,
    Precision,
    Recipe,
    RunSpec,
    Settings,
    Splits,
    SuiteError,
    Track,
    Value,
)

PROBE: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 32,
    "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 1e-2},
    "schedule": {"name": "one_cycle"},
    "frozen_stages": -1,
    "augmentation": (),
}
"""What the probe track changes in a data set's budget: the backbone is frozen and its maps are
made once, so there is nothing to augment, and a head alone bears a larger step."""

PIXELS = {"resize", "sizes"}
"""Options of augmentation steps that are sizes in pixels."""

TUNABLE = {"optimizer", "head_options"}
"""What ``Recipe.tuned`` may set; of the optimiser, only its learning rate and weight decay."""


class Suite(Value):
    """A matrix: every combination of the axes runs.

    Attributes:
        plugins: names of any kind, sorted into the axes below.
        methods: recipes, or heads without one.
        datasets, backbones, losses, seeds: the other axes; empty takes what the track says.
        labels: only these labels take part.
        holdout: score this part of train instead of test.
        dataset_options: data set -> options of its factory.
        settings: overrides for every run.
        per_method: method -> overrides for its runs.
        grid: dotted name of a setting -> values, each an axis (``optimizer.lr: [1e-3, 1e-4]``).
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
    holdout: float = 0.0
    dataset_options: dict[str, dict[str, Any]] = {}
    settings: dict[str, Any] = {}
    per_method: dict[str, dict[str, Any]] = {}
    grid: dict[str, tuple[Any, ...]] = {}


def read(file: Path) -> dict[str, Any]:
    """The fields of a suite file, not yet checked.

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
            raise SuiteError(registry.unknown(f"option {name!r} in {file}", str(name), known))
    return fields


def make(fields: Mapping[str, Any], origin: str = "the command line") -> Suite:
    """A suite from fields, with ``plugins`` sorted into the axes.

    Raises:
        SuiteError: a field of the wrong type, or no method at all.
        PluginError: a name that no plugin has.
    """
    try:
        suite = Suite.model_validate(dict(fields))
    except ValidationError as error:
        raise SuiteError(f"{origin}: {explain(error)}") from error
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
    return suite


def _axis(name: str) -> str:
    kinds = registry.kinds_of(name)
    axes = sorted({"methods" if kind in ("head", "recipe") else PLURALS[kind] for kind in kinds})
    if not axes:
        known = {plugin.name for plugin in registry.plugins()}
        raise PluginError(registry.unknown(f"plugin {name!r}", name.partition(":")[0], known))
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


class Refused(Value):
    """A combination that cannot run, and why."""

    label: str
    reason: str


Opener = Callable[[str, Mapping[str, Any], tuple[str, ...] | None, float], Splits]
"""(dataset, options, labels, holdout) -> its splits."""


def expand(
    suite: Suite, opener: Opener, weights: str | None = None, words: str = "cooccurrence"
) -> tuple[list[RunSpec], list[Refused]]:
    """Every combination as a spec; what cannot be settled is refused by name.

    Args:
        suite: the matrix.
        opener: opens a data set, once for each.
        weights: identity of the weights that every run's backbone starts from, if given.
        words: identity of the label vectors.
    """
    specs: dict[str, RunSpec] = {}
    refused: list[Refused] = []
    for dataset in suite.datasets or ("synthetic",):
        options = suite.dataset_options.get(dataset, {})
        splits = opener(dataset, options, suite.labels, suite.holdout)
        for combination in _combinations(suite):
            method, backbone, loss, seed, grid = combination
            label = " x ".join(str(x) for x in (method, dataset, backbone, loss) if x)
            try:
                settings = settle(suite, splits, dataset, method, (backbone, loss, weights, grid))
                spec = RunSpec(
                    method=method,
                    dataset=dataset,
                    dataset_options=dict(options),
                    data=splits.digest,
                    labels=suite.labels,
                    holdout=suite.holdout,
                    track=suite.track,
                    seed=seed,
                    precision=suite.precision,
                    words=words,
                    settings=settings,
                )
                specs[spec.run_id] = spec
            except PluginError as error:
                refused.append(Refused(label=label, reason=str(error)))
    return list(specs.values()), refused


def _combinations(
    suite: Suite,
) -> Iterable[tuple[str, str | None, str | None, int, dict[str, Any]]]:
    grids = [
        dict(zip(suite.grid, values, strict=True))
        for values in itertools.product(*suite.grid.values())
    ]
    return itertools.product(
        suite.methods, suite.backbones or (None,), suite.losses or (None,), suite.seeds, grids
    )


def settle(
    suite: Suite,
    splits: Splits,
    dataset: str,
    method: str,
    choice: tuple[str | None, str | None, str | None, Mapping[str, Any]],
) -> Settings:
    """The settings of one run: the track's rules, then what the suite and the axes override.

    ``published`` takes the recipe's settings for the data set. ``controlled`` takes the data set's
    budget for everything but the head, and ``probe`` that budget with ``PROBE`` over it; both add
    what was tuned for the method under an equal budget.
    """
    backbone, loss, weights, grid = choice
    recipe = _recipe(method)
    if suite.track == "published":
        fields = recipe.settings.model_dump()
        fields = merge(fields, recipe.per_dataset.get(dataset, {}))
    else:
        fields = merge({"loss": "bce"}, splits.card.budget)
        if suite.track == "probe":
            fields = merge(fields, PROBE)
        fields["head"] = recipe.settings.head
        fields["head_options"] = recipe.settings.head_options
        fields = merge(fields, _tuned(recipe, method, suite.track))
    if loss is not None and loss != fields["loss"]:
        fields = {**fields, "loss": loss, "loss_options": {}}
    if backbone is not None:
        fields["backbone"] = backbone
    if weights is not None:
        fields["weights"] = weights
    before = Settings.model_validate(fields).image_size
    fields = merge(fields, suite.settings)
    fields = merge(fields, suite.per_method.get(method, {}))
    for dotted, value in grid.items():
        fields = merge(fields, _nest(dotted, value))
    try:
        return _scale_pixels(Settings.model_validate(fields), before)
    except ValidationError as error:
        raise SuiteError(f"settings of {method}: {explain(error)}") from error


def _scale_pixels(settings: Settings, before: int) -> Settings:
    """Sizes in pixels follow an image size that was overridden: a recipe that crops 576 out of 640
    crops 224 out of 249, not out of 640.
    """  # noqa: D205
    ratio = settings.image_size / before
    if ratio == 1:
        return settings

    def scale(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [scale(one) for one in value]
        return round(value * ratio)

    steps = []
    for step in settings.augmentation:
        pixels = {k: scale(v) if k in PIXELS else v for k, v in step.options.items()}
        steps.append(step.model_copy(update={"options": pixels}))
    asked = settings.preprocessing
    resize = None if asked.resize is None else scale(asked.resize)
    return settings.model_copy(
        update={
            "augmentation": tuple(steps),
            "preprocessing": asked.model_copy(update={"resize": resize}),
        }
    )


def _recipe(method: str) -> Recipe:
    if "recipe" in registry.kinds_of(method):
        recipe = registry.find("recipe", method).load()
        assert isinstance(recipe, Recipe), f"recipe {method!r} is a {type(recipe).__name__}"
        return recipe
    return Recipe(title=method, bibtex="", summary="", settings=Settings(head=method))


def _tuned(recipe: Recipe, method: str, track: Track) -> dict[str, Any]:
    tuned = recipe.tuned.get(track, {})
    beyond = set(tuned) - TUNABLE | set(tuned.get("optimizer", {})) - {"lr", "weight_decay"}
    if beyond:
        raise PluginError(
            f"recipe {method!r} tunes {', '.join(sorted(beyond))} for the {track} track; only the "
            "learning rate, the weight decay and options of the head may differ between methods"
        )
    return tuned


def merge(fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with ``over`` laid on top, mappings merged key by key."""
    merged = dict(fields)
    for name, value in over.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _nest(dotted: str, value: Any) -> dict[str, Any]:
    first, _, rest = dotted.partition(".")
    return {first: _nest(rest, value) if rest else value}


def explain(error: ValidationError) -> str:
    """A validation error in one line: which field, what value, what would do."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            name = str(item["loc"][-1])
            lines.append(registry.unknown(f"option {where!r}", name, _siblings(item["loc"])))
        else:
            lines.append(f"{where} = {item['input']!r}: {item['msg']}")
    return "; ".join(lines)


def _siblings(location: tuple[int | str, ...]) -> Iterable[str]:
    """Names of the fields beside the one at this location of Settings."""
    model: Any = Settings
    for part in location[:-1]:
        if isinstance(part, int):
            model = typing.get_args(model)[0]
        else:
            model = model.model_fields[part].annotation
    return list(model.model_fields)
