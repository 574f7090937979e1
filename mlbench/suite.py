"""A ``Suite``: one validated matrix."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from mlbench import registry
from mlbench.registry import PLURALS, Kind
from mlbench.text import describe_errors, unknown
from mlbench.tracks import refuse_truths
from mlbench.types import (
    Graph,
    Keep,
    KnownLabels,
    LabelNoise,
    PluginError,
    Precision,
    Seed,
    SuiteError,
    Track,
    Value,
)

LABEL_AXES: dict[str, tuple[str, ...]] = {
    "graph": get_args(Graph),
    "words": ("cooccurrence", "random"),
}
"""Axes that describe the labels -> their values. They vary like settings."""

DRAWN_LABELS: dict[str, type[Value]] = {"label_noise": LabelNoise, "known_labels": KnownLabels}
"""More axes that describe labels, which a hash draws -> the type of their values."""


def describes_labels(name: str) -> bool:
    """True if a name in ``grid`` or ``vary`` is such an axis, not a setting."""
    return name in LABEL_AXES or name.partition(".")[0] in DRAWN_LABELS


COMMAND_LINE = "the command line"


def as_list(value: Any) -> Any:
    """Turn ``a, b`` or a single value, such as ``manifest:a,b.csv`` of a file, into a list."""
    file = re.match("[^,:]+:(.+)", value) if isinstance(value, str) else None
    if isinstance(value, str) and not (file and os.path.exists(file[1])):  # noqa: PTH110
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, str | int | float | Mapping) else value


Names = Annotated[tuple[str, ...], BeforeValidator(as_list)]
Values = Annotated[tuple[Any, ...], BeforeValidator(as_list), Field(min_length=1)]


def _as_bytes(value: Any) -> Any:
    """Turn ``50GB`` into 50,000,000,000 and ``50GiB`` into 50 * 2**30."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", value.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("a size is a number and a unit, such as 50GB")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


def as_seconds(value: Any) -> Any:
    """Turn ``90s``, ``10m`` and ``2h`` into seconds; a bare number is seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smh]?)", str(value).strip())
    if match is None or not float(match[1]):
        raise ValueError("a time is a number above 0 and a unit, such as 90s, 10m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


class Suite(Value):
    """A matrix, each combination of which is a run, and where it runs.

    Attributes:
        plugins: names of any kind, sorted into the axes below.
        methods: recipes, or heads without one.
        datasets, backbones, losses, seeds: the other axes; an empty one follows the track.
        track: ``controlled``, ``published``, ``probe`` or ``zero_shot``.
        precision: ``fp32``, ``tf32``, ``bf16`` or ``fp16``; ``bf16`` by default where CUDA has it.
        labels: use only these labels.
        holdout: score this fraction of train, not test.
        holdout_fold: which such part, from 0.
        graph, words: two more axes: how the label graph is made, and where the label vectors
            come from (``cooccurrence``, ``random``, a file); a method that uses neither runs once.
        label_noise: training labels that are dropped or flipped on purpose.
        known_labels: share of the labels of each test image that heads are given, such as 0.25;
            the others are scored, on separate boards.
        allow_missing: skip images that cannot be used; such runs get separate boards.
        dataset_options: data set -> options of its factory.
        settings: overrides for every run.
        per_method: method -> overrides for its runs.
        grid: dotted name of a setting -> values; each name is an axis (``optimizer.lr: [1e-3]``).
        vary: dotted name of a setting -> values; each value adds a run that differs in it alone.
        data, results, cache: folders; defaults are ``MLBENCH_DATA`` and ``MLBENCH_CACHE``.
        cache_limit: size of the cache, such as ``50GB``, above which the least recently used
            entries are deleted, except those that the matrix needs.
        image_cache: keep decoded images in the cache, for the same pixels in less time.
        weights: weights of the backbone: ``default``, ``none``, or a file.
        init: a model to start from: the folder of a run, or a checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        processes: number of processes that train a run together; on GPUs, each has one GPU.
        devices: numbers of the GPUs to fill with runs; by default as many as one run needs.
        jobs: runs at a time, on each group of devices that a run needs.
        share_data: train runs of equal batches side by side in one process; on this machine only.
        stall: time without progress after which a run counts as hung, such as ``10m``.
        budget: time, such as ``2h``, after which runs are stopped; none begins that would not fit.
        tracker: plugins that receive steps, epochs and records.
        executor, executor_options: who carries out the runs, and its options.
        workers: decoding threads per process.
        keep: which trained models to keep: ``all``, ``none``, or on each board the ``best`` of each
            method with each backbone, including earlier runs in the store.
        checkpoint_every: minutes between two saved states, from which an interrupted run resumes.
        deterministic: use only algorithms of torch that repeat their results to the bit.
        activation_checkpointing: compute activations again in the backward pass, for less memory.
        profile: measure where the time of training steps goes (``profile.json`` of each run).
        retry_diverged: run diverged runs again.
        measure: measure how fast the models are, after the runs.

    ``grid`` and ``vary`` take ``graph``, ``words``, ``label_noise`` and ``known_labels`` like
    settings.
    """

    plugins: Names = ()
    methods: Names = ()
    datasets: Names = ()
    backbones: Names = ()
    losses: Names = ()
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(as_list), Field(min_length=1)] = (0,)
    track: Track = "controlled"
    precision: Precision = "fp32"
    labels: Annotated[tuple[str, ...] | None, BeforeValidator(as_list)] = None
    holdout: float = Field(0.0, ge=0, lt=1)
    holdout_fold: NonNegativeInt = 0
    graph: Annotated[Names, Field(min_length=1)] = ("cooccurrence",)
    words: Names = ("cooccurrence",)
    label_noise: LabelNoise = LabelNoise()
    known_labels: KnownLabels = KnownLabels()
    allow_missing: bool = False
    dataset_options: dict[str, dict[str, Any]] = {}
    settings: dict[str, Any] = {}
    per_method: dict[str, dict[str, Any]] = {}
    grid: dict[str, Values] = {}
    vary: dict[str, Values] = {}
    data: Path | None = None
    results: Path = Path("results")
    cache: Path | None = None
    cache_limit: Annotated[NonNegativeInt | None, BeforeValidator(_as_bytes)] = None
    image_cache: bool = False
    weights: str | None = None
    init: str | None = None
    device: str = "auto"
    processes: PositiveInt = 1
    devices: Annotated[tuple[NonNegativeInt, ...], BeforeValidator(as_list)] = ()
    jobs: PositiveInt = 1
    share_data: bool = False
    stall: Annotated[PositiveFloat, BeforeValidator(as_seconds)] = 600.0
    budget: Annotated[PositiveFloat | None, BeforeValidator(lambda v: v and as_seconds(v))] = None
    tracker: Names = ()
    executor: str = "local"
    executor_options: dict[str, Any] = {}
    workers: NonNegativeInt | None = None
    keep: Keep = "all"
    checkpoint_every: NonNegativeFloat = 10.0
    deterministic: bool = False
    activation_checkpointing: bool = False
    profile: bool = False
    retry_diverged: bool = False
    measure: bool = True

    @field_validator("*", mode="before")
    @classmethod
    def _assert_utf8(cls, value: Any) -> Any:
        """Records cannot hold other names of files, nor can safetensors open them."""
        if re.search(r"(?<!\\)\\ud[89a-f]", ascii(value)):  # a byte 255 is written \udcff
            raise ValueError("a name in it is not UTF-8; rename that file or folder")
        return value


def make_suite(
    fields: Mapping[str, Any], origin: str = COMMAND_LINE, flags: Mapping[str, Any] | None = None
) -> Suite:
    """Validate the fields of a suite and sort ``plugins`` into the axes.

    Raises:
        SuiteError: a field has the wrong type, or no method is named.
        PluginError: no plugin has one of the names.
    """
    try:
        suite = Suite.model_validate(_dataset_options(dict(fields)))
        refuse_truths(fields, suite)
    except ValidationError as error:
        of_file = Suite.__pydantic_validator__.isinstance_python(dict(flags or {}))
        blamed = origin if of_file else COMMAND_LINE
        raise SuiteError(f"{blamed}: {describe_errors(error, Suite)}") from error
    every = ("methods", "datasets", "backbones", "losses")
    axes: dict[str, list[str]] = {axis: list(getattr(suite, axis)) for axis in every}
    for name in suite.plugins:
        axes[_axis(name, suite.track)].append(name)
    unique = {axis: tuple(dict.fromkeys(names)) for axis, names in axes.items()}
    suite = suite.model_copy(update={**unique, "plugins": ()})
    _check_names(suite)
    _check_label_axes(suite)
    _check_use(suite, flags or {})
    return suite


def _dataset_options(fields: dict[str, Any]) -> dict[str, Any]:
    """Expand ``NAME: value`` to every data set and ``DATASET.NAME: value`` to one."""
    given = fields.get("dataset_options")
    if not isinstance(given, Mapping) or all(isinstance(v, Mapping) for v in given.values()):
        return fields
    names = [*(as_list(fields.get("datasets")) or ()), *(as_list(fields.get("plugins")) or ())]
    datasets = [n for n in names if "dataset" in registry.kinds_of(n)] or ["synthetic"]
    options: dict[str, dict[str, Any]] = {name: {} for name in datasets}
    options |= {name: dict(v) for name, v in given.items() if isinstance(v, Mapping)}
    for key, value in given.items():
        if isinstance(value, Mapping):
            continue
        dataset, dot, option = key.rpartition(".")
        if dot and dataset not in options:
            what = f"data set {dataset!r} of dataset_options.{key}"
            raise SuiteError(unknown(what, dataset, options))
        for one in (dataset,) if dot else datasets:
            options[one][option] = value
    return {**fields, "dataset_options": options}


def _axis(name: str, track: Track) -> str:
    kinds = registry.kinds_of(name)
    if kinds == ["loss", "recipe"] and track != "published":
        return "losses"  # its recipe is for the published track
    axes = sorted({"methods" if kind in ("head", "recipe") else PLURALS[kind] for kind in kinds})
    if not axes:
        raise registry.unknown_plugin(name)
    if len(axes) > 1:
        given = ("--set methods=" if axis == "methods" else f"--{axis} " for axis in axes)
        flags = " or ".join(f"{flag}{name}" for flag in given)
        raise PluginError(f"{name!r} names several kinds of plugin; use {flags}")
    return axes[0]


def _check_names(suite: Suite) -> None:
    if not suite.methods:
        raise SuiteError(
            "no method to run; name at least one, e.g. --plugins gap,ssgrl (`mlbench list`)"
        )
    kinds: tuple[Kind, ...] = ("dataset", "backbone", "loss")
    for kind in kinds:
        for name in getattr(suite, PLURALS[kind]):
            registry.find(kind, name)
    for method in {*suite.methods, *suite.per_method}:
        named = registry.kinds_of(method)
        if "recipe" not in named:
            registry.find("head", method)
        elif named == ["loss", "recipe"] and suite.track != "published":
            raise SuiteError(
                f"{method!r} is a loss, whose recipe is for the published track; name a head with "
                f"it, as in --plugins gap,{method}, or give --track published"
            )


def _check_label_axes(suite: Suite) -> None:
    if not suite.words:  # which commands for one run take for no file
        raise SuiteError("words is empty; give at least one value")
    # Words that look like files are left to ``mlbench.plan.identify_files``.
    words = [word for word in suite.words if not Path(word).suffix and not Path(word).is_file()]
    axes = {"graph": suite.graph, "words": words}
    for name, known in LABEL_AXES.items():
        for value in (*axes[name], *suite.grid.get(name, ()), *suite.vary.get(name, ())):
            if value not in known and not (name == "words" and str(value).startswith("sha256:")):
                file = "; give a file of vectors by --words FILE" if name == "words" else ""
                raise SuiteError(unknown(f"{name} {value!r}", str(value), known) + file)


def _check_use(suite: Suite, flags: Mapping[str, Any]) -> None:
    """Refuse fields without effect, except those of a file whose axes the command line replaced."""

    def lost(table: str, name: str, *axes: str) -> bool:
        return flags.keys().isdisjoint(axes) or name in flags.get(table, {})

    for table, axis in (("dataset_options", "datasets"), ("per_method", "methods")):
        here = getattr(suite, axis) or ("synthetic",)
        for name in getattr(suite, table):
            if name not in here and lost(table, name, axis, "plugins"):
                raise SuiteError(
                    f"{table}: {name} is not among the {axis} ({', '.join(here)}); correct the "
                    "name, leave it out, or add it there"
                )
    for name, axis in (("backbone", "backbones"), ("loss", "losses")):
        given, setting = getattr(suite, axis), suite.settings.get(name)
        differ = setting is not None and any(one != setting for one in given)
        if differ and lost("settings", name, axis, "plugins"):
            raise SuiteError(
                f"{name}={setting} has no effect, as {axis}={','.join(given)}; give one of them"
            )
        if given and name in suite.grid:
            both = f"{axis} and grid.{name}"
            raise SuiteError(f"{both} both name every {name} of the matrix; leave one out")
    for name in suite.executor_options if suite.executor == "local" else ():
        if lost("executor_options", name, "executor"):
            what = f"executor_options.{name} is for other executors than local"
            raise SuiteError(f"{what}; name one with --executor, or leave it out")
