"""The settings in which rows of a board differ, and the runs with an untuned learning rate."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from statistics import fmean
from typing import Any

from mlbench.boards.markup import one_line
from mlbench.numbers import outdated
from mlbench.text import flatten
from mlbench.types import RunRecord, RunSpec

UNNAMED = {"method", "seed", "data", "settings.backbone", "settings.loss", "settings.head"}
"""Fields of a spec that a title names before the variant, or that follow from these."""
COLUMNS = {"settings.image_size", "settings.epochs"}
"""Fields that have a column on boards; variants omit them, titles do not."""
ALWAYS_NAMED = {
    "graph": ("identity", "random"),
    "words": ("random",),
    "settings.selection": ("validation", "test"),
}
"""Field of a spec -> value that a variant names even if no other row differs in the field."""

Namesake = tuple[str, str, str]
"""Method, backbone and loss: rows that agree in them need a variant."""


def variants(specs: Sequence[RunSpec], omitted: Set[str] = frozenset()) -> list[str]:
    """Return for each spec the settings that differ from its namesakes: ``optimizer.lr=0.001``."""
    different = _different(specs)
    return [_variant(_flat_spec(spec), different[_namesake(spec)] - omitted) for spec in specs]


def _variant(fields: Mapping[str, Any], different: set[str]) -> str:
    named = {name for name, values in ALWAYS_NAMED.items() if fields.get(name) in values}
    partial = fields.get("label_noise.keep", 1) < 1 or fields.get("label_noise.single_positive")
    if partial and fields.get("settings.selection") == "validation":
        fields = {**fields, "settings.selection": "validation by full labels"}
    if fields.get("processes", 1) > 1:
        named.add("processes")
    return ", ".join(
        f"{name.removeprefix('settings.')}={fields[name]}"
        for name in sorted(named | different - UNNAMED)
        if name in fields
    )


def _different(specs: Sequence[RunSpec]) -> dict[Namesake, set[str]]:
    """Return the fields in which specs of one method, backbone and loss differ."""
    namesakes: dict[Namesake, list[dict[str, Any]]] = defaultdict(list)
    for spec in specs:
        namesakes[_namesake(spec)].append(_flat_spec(spec))
    return {
        key: {
            name
            for name in {name for fields in group for name in fields}
            if len({str(fields.get(name)) for fields in group}) > 1
        }
        for key, group in namesakes.items()
    }


def _namesake(spec: RunSpec) -> Namesake:
    return spec.method, spec.settings.backbone, spec.settings.loss


def _flat_spec(spec: RunSpec) -> dict[str, Any]:
    plain = spec.model_dump(mode="json")
    if mixing := plain["settings"]["mixing"]:
        options = ", ".join(f"{name} {value}" for name, value in mixing["options"].items())
        plain["settings"]["mixing"] = f"{mixing['name']} ({options})"
    return flatten(plain)


def row_title(spec: RunSpec, variant: str = "") -> str:
    """Return the title of a row: ``gap, resnet18, bce optimizer.lr=0.001``."""
    return one_line(f"{spec.method}, {spec.settings.backbone}, {spec.settings.loss} {variant}")


def untuned_runs(records: Iterable[RunRecord]) -> set[str]:
    """Return the runs whose learning rate is not known to be tuned.

    A rate is tuned if a recipe names it for the track, or if it was the best of several in held-out
    runs of the same configuration on the same data. Held-out runs are trials themselves, and the
    published track uses its authors' rates; both are never listed.
    """
    trials: dict[Any, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    listed = list(records)
    for record in listed:
        if record.spec.holdout and record.scores:
            rate = record.spec.settings.optimizer.lr
            trials[_without_rate(record)][rate].append(record.scores.mAP)

    def tuned(record: RunRecord) -> bool:
        spec, tried = record.spec, trials.get(_without_rate(record), {})
        best = max(tried, key=lambda rate: fmean(tried[rate]), default=None)
        trained = spec.settings.epochs > 0
        if not trained or spec.holdout or spec.track == "published" or record.recipe_rate:
            return True
        return len(tried) > 1 and best == spec.settings.optimizer.lr

    return {r.run_id for r in listed if not outdated(r.numbers) and not tuned(r)}


def _without_rate(record: RunRecord) -> tuple[str, str]:
    """Return a key that is equal for the trials of a configuration and the runs based on them."""
    settings = record.spec.settings
    optimizer = settings.optimizer.model_copy(update={"lr": 0.0})
    same = {"settings": settings.model_copy(update={"optimizer": optimizer})}
    any_part = {"holdout": 0.0, "holdout_fold": 0, "data": "", "seed": 0, "processes": 1}
    part = r"(-holdout-[\d.]+(-fold-\d+)?(-and-validation)?)?(-incomplete-[\da-f-]+)?$"
    data = re.sub(part, "", record.identity)
    return data, record.spec.model_copy(update=same | any_part).run_id


def options_by_loss(specs: Sequence[RunSpec]) -> list[str]:
    """List the head options that a method has with some losses only.

    Variants do not show these: ``gap: prior_bias=False (asl), prior_bias=True (bce, focal)``.
    """
    different = _different(specs)
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    losses: dict[str, set[str]] = defaultdict(set)
    for spec in specs:
        losses[spec.method].add(spec.settings.loss)
        for name, value in flatten(spec.settings.head_options).items():
            if f"settings.head_options.{name}" not in different[_namesake(spec)]:
                found[spec.method][f"{name}={value}"].add(spec.settings.loss)
    partial = {
        method: [
            f"{option} ({', '.join(sorted(some))})"
            for option, some in sorted(options.items())
            if some != losses[method]
        ]
        for method, options in sorted(found.items())
    }
    return [f"{method}: {', '.join(texts)}" for method, texts in partial.items() if texts]
