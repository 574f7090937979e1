"""Expand a matrix into runs: which are missing, which are done, and which cannot run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlbench import registry
from mlbench.build import identity_of, model_file
from mlbench.data.open import open_run
from mlbench.numbers import edited, outdated
from mlbench.preflight import drop_unused_inputs, refusal
from mlbench.store import Store
from mlbench.suite import DRAWN_LABELS, LABEL_AXES, Suite, describes_labels
from mlbench.text import describe_errors, flatten, shorten
from mlbench.tracks import for_dataset, merge, nest, recipe_of, settle
from mlbench.types import (
    DataError,
    MlbenchError,
    Places,
    Plan,
    PluginError,
    Refused,
    RunRecord,
    RunSpec,
    Settings,
    Splits,
    StoreError,
    SuiteError,
    Value,
    WeightsError,
)


def identify_files(suite: Suite) -> tuple[Suite, dict[str, Path]]:
    """A suite with digests in place of the files that it names, and these: ``words`` and so on.

    Raises:
        WeightsError: a file cannot be read.
        SuiteError: more than one file of label vectors is named, two starts of the backbone, or
            one file of weights for several.
    """
    weights, words, init = suite.weights, suite.words, suite.init
    files: dict[str, Path] = {}

    def identify(name: str, file: Path, remedy: str) -> str:
        files[name] = file
        try:
            return identity_of(file)
        except OSError as error:
            message = f"{name}: {file} cannot be read ({error.strerror}); give {remedy}"
            raise WeightsError(message) from error

    if init and weights:
        raise SuiteError("--init brings the backbone's weights; leave out --weights")
    if init and not init.startswith("sha256:"):
        remedy = "the folder of a run, or its checkpoint.safetensors"
        init = identify("init", model_file(Path(init).expanduser()), remedy)
    if weights and weights not in ("default", "none") and not weights.startswith("sha256:"):
        if len(suite.backbones) > 1:
            raise SuiteError("--weights FILE fits one backbone only; name one with --backbones")
        weights = identify("weights", Path(weights), "default, none, or an existing file")
    known = LABEL_AXES["words"]
    names = [word for word in words if word not in known and not word.startswith("sha256:")]
    if len(names) > 1:
        raise SuiteError(f"words: {', '.join(names)} are {len(names)} files; name one")
    if names:
        remedy = "a GloVe text file or an .npz of names and vectors, cooccurrence, or random"
        found = identify("words", Path(names[0]), remedy)
        words = tuple(found if word in names else word for word in words)
    return suite.model_copy(update={"weights": weights, "words": words, "init": init}), files


def assert_same_files(spec: RunSpec, named: Suite) -> None:
    """Compare the files of a suite of ``identify_files`` with those of a run.

    Raises:
        WeightsError: they differ.
    """
    compared = (
        ("weights", spec.settings.weights, (named.weights,) if named.weights else ()),
        ("words", spec.words, named.words),
        ("init", spec.init, (named.init,) if named.init else ()),
    )
    for flag, identity, given in compared:
        is_file = identity.startswith("sha256:")
        if given == (identity,) or not (given or is_file):
            continue
        got = f", not {', '.join(given)}" if given else ""
        remedy = f"give the file with this digest by --{flag} FILE" if is_file else f"omit --{flag}"
        raise WeightsError(f"the run used {flag} {identity}{got}; {remedy}")


Veto = Callable[[RunSpec], str | None]
"""Told before the plugins of a run are constructed; returns why they must not be, if so."""


class _OpenedData:
    """The data sets of a matrix, each opened once; ``read`` says how users' own were understood."""

    def __init__(self, allow_missing: bool, places: Places) -> None:
        self._allow_missing, self._places = allow_missing, places
        self._opened: dict[str, Splits | MlbenchError] = {}
        self.read: dict[str, str] = {}

    def of(self, spec: RunSpec) -> Splits:
        """Open the data of a run, or fail to, once for all runs that read the same."""
        options = sorted(spec.dataset_options.items())
        validation = spec.settings.selection == "validation"
        edition = f"{spec.dataset} {options} {spec.label_noise} {spec.known_labels} {validation}"
        if edition not in self._opened:
            asked = spec.model_copy(update={"incomplete": self._allow_missing})
            try:
                splits = open_run(asked, self._places)
                if splits.interpretation is not None:
                    facts = splits.interpretation.facts.items()
                    self.read[spec.dataset] = "; ".join(f"{what}: {how}" for what, how in facts)
                self._opened[edition] = splits
            except MlbenchError as error:
                self._opened[edition] = error
        if isinstance(found := self._opened[edition], MlbenchError):
            raise found
        return found


def make_plan(suite: Suite, places: Places, veto: Veto = lambda _: None) -> Plan:
    """Expand a matrix of ``identify_files`` into runs and compare them with the store."""
    data = _OpenedData(suite.allow_missing, places)
    specs, refused = expand(suite, data.of)
    words = next((name for name in suite.words if name != "random"), "cooccurrence")
    found: dict[str, RunSpec] = {}
    for spec in (one.trained_by(suite.processes) for one in specs):
        if spec.graph != "cooccurrence" or spec.words == "random":
            if reason := veto(spec):
                refused.append(Refused(label=spec.title, reason=reason))
                continue
            spec = drop_unused_inputs(spec, data.of, places, words)
        found[spec.run_id] = spec
    again = suite.retry_diverged
    plan = compare_with_store(list(found.values()), data.of, places, again, veto)
    return plan.model_copy(update={"read": data.read, "refused": (*refused, *plan.refused)})


def compare_with_store(
    specs: Sequence[RunSpec],
    splits_of: Callable[[RunSpec], Splits],
    places: Places,
    retry_diverged: bool,
    veto: Veto = lambda _: None,
) -> Plan:
    """Sort runs, without duplicates, by their state in the store.

    Missing ones are built on the ``meta`` device, which may show that they cannot run.
    ``splits_of`` opens the data set of a run.
    """
    store = Store(places.results)
    missing, done, diverged, impossible = [], [], [], []
    reasons: dict[str, str | None] = {}
    why: dict[str, str] = {}
    replaces: dict[str, str] = {}
    stored = functools.cache(lambda: flat_specs(store.records()))  # only if a run is missing
    for spec in specs:
        try:
            record = store.record_of(spec)
        except StoreError as error:  # a person decides whether to restore or to delete it
            impossible.append(Refused(label=spec.title, reason=str(error)))
            continue
        lacking = outdated(record.numbers) if record is not None else _why_missing(spec, stored())
        if record is not None and not lacking and record.status == "ok":
            done.append(record)
        elif record is not None and not lacking and not retry_diverged:
            diverged.append((spec, record.error or "diverged"))
        else:
            why[spec.run_id] = lacking or "it diverged before"
            if record is not None:
                replaces[spec.run_id] = record.digest
            # The seed matters only if it draws the graph or the words.
            key = spec.run_id if "random" in (spec.graph, spec.words) else spec.configuration
            if key not in reasons:
                reasons[key] = veto(spec) or refusal(spec, splits_of, places)
            if (reason := reasons[key]) is None:
                missing.append(spec)
            else:
                impossible.append(Refused(label=spec.title, reason=reason))
    return Plan(
        missing=missing,
        done=[record.spec for record in done],
        edited=edited(done),
        diverged=diverged,
        refused=impossible,
        why=why,
        replaces=replaces,
    )


def flat_specs(records: Iterable[RunRecord]) -> dict[str, dict[str, Any]]:
    """Run id -> the fields of its spec by dotted names, for ``nearest``."""
    return {record.run_id: flatten(record.spec.canonical()) for record in records}


def _why_missing(spec: RunSpec, others: Mapping[str, dict[str, Any]]) -> str:
    """Which record is nearest to a run without one, and in what it differs."""
    near = nearest(spec, others)
    if near is None:
        return "no record"
    return f"no record; nearest {near[1][:8]} differs in {shorten(near[0], 3)}"


def nearest(
    spec: RunSpec, others: Mapping[str, dict[str, Any]], named: str = "asked"
) -> tuple[list[str], str] | None:
    """The fields in which the nearest record of the method and track differs, and its run id.

    They call the run what ``named`` says: ``settings.epochs: 6, asked 9``.
    """
    here = flatten(spec.canonical())
    near = [
        ([name for name in here | there if there.get(name) != here.get(name)], run_id)
        for run_id, there in others.items()
        if (there["method"], there["track"]) == (spec.method, spec.track)
    ]
    if not near:
        return None
    names, run_id = min(near, key=lambda found: len(found[0]))
    there = others[run_id]
    return [
        f"{name}: {there.get(name, 'not recorded')}, {named} {here.get(name, 'none')}"
        for name in sorted(names)
    ], run_id


def expand(
    suite: Suite, splits_of: Callable[[RunSpec], Splits]
) -> tuple[list[RunSpec], list[Refused]]:
    """Make the spec of every combination; return them and those without valid data or settings.

    ``splits_of`` opens the data set of a run, first before its settings are known, without a
    validation part.
    """
    specs: dict[str, RunSpec] = {}
    refused: dict[Refused, None] = {}
    points = itertools.product(suite.datasets or ("synthetic",), _combinations(suite))
    for name, (method, overrides, about_labels, seed) in points:
        given = suite.dataset_options.get(name, {})
        try:
            dataset, _ = registry.recorded_as(name, given)
            published = recipe_of(method).dataset_options if suite.track == "published" else {}
            authors = for_dataset(published, dataset)
            dataset, options = registry.recorded_as(name, {**authors, **given})
            spec = RunSpec(
                method=method,
                dataset=dataset,
                dataset_options=options,
                data="",  # until it is opened
                labels=suite.labels,
                holdout=suite.holdout,
                holdout_fold=suite.holdout_fold,
                init=suite.init or "",
                track=suite.track,
                precision=suite.precision,
                **about_labels,
                settings=Settings(head=method),
            )
            splits = splits_of(spec)
            settings = settle(suite.track, method, dataset, splits.card, overrides)
            spec = spec.model_copy(update={"settings": settings})
            if suite.holdout and settings.selection == "validation":  # holds other images out
                splits = splits_of(spec)
        except (DataError, PluginError) as error:
            refused[Refused(label=f"{method} on {name}", reason=str(error))] = None
            continue
        found = {"data": splits.digest, "incomplete": splits.incomplete}
        spec = spec.model_copy(update=found | {"seed": seed if settings.epochs else 0})
        specs[spec.run_id] = spec
    return list(specs.values()), list(refused)


def _combinations(
    suite: Suite,
) -> Iterator[tuple[str, Sequence[Mapping[str, Any]], dict[str, Any], int]]:
    """Method, overrides of the track's settings in order, ``_about_labels``, seed."""
    axes: dict[str, tuple[Any, ...]] = {
        "backbone": suite.backbones or (None,),
        "loss": suite.losses or (None,),
        "graph": suite.graph,
        "words": suite.words,
        **suite.grid,
    }
    start = "none" if suite.init else suite.weights
    chosen = {} if start is None else {"weights": start}
    departures = [{}, *({name: value} for name, values in suite.vary.items() for value in values)]
    for method, values, departure, seed in itertools.product(
        suite.methods, itertools.product(*axes.values()), departures, suite.seeds
    ):
        point = dict(zip(axes, values, strict=True))
        axis = {n: point[n] for n in ("backbone", "loss") if point[n]}
        grid = [nest(n, point[n]) for n in suite.grid if not describes_labels(n)]
        varied = [nest(n, v) for n, v in departure.items() if not describes_labels(n)]
        per_method = suite.per_method.get(method, {})
        overrides = [suite.settings, {**axis, **chosen}, per_method, *grid, *varied]
        yield method, overrides, _about_labels(suite, point, departure), seed


def _about_labels(
    suite: Suite, point: Mapping[str, Any], departure: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a spec that describe the labels.

    Raises:
        SuiteError: a value of the grid or of ``vary`` is wrong, or does not fit the others.
    """

    def checked(name: str, value: Any) -> Value:
        try:
            return DRAWN_LABELS[name].model_validate(value)
        except ValidationError as error:
            table = "vary" if any(varied.startswith(name) for varied in departure) else "grid"
            what = describe_errors(error, DRAWN_LABELS[name])
            raise SuiteError(f"{table}.{name}: {what}") from error

    found: dict[str, Any] = {name: getattr(suite, name).model_dump() for name in DRAWN_LABELS}
    for name, value in {**point, **departure}.items():
        first, _, rest = name.partition(".")
        if name in LABEL_AXES:
            found[name] = value
        elif first in DRAWN_LABELS and rest:  # checked with the others, which it may need
            found[first] = merge(found[first], nest(rest, value))
        elif first in DRAWN_LABELS:
            found[first] = dict(checked(first, value))
    return found | {name: checked(name, found[name]) for name in DRAWN_LABELS}
