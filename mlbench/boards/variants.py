"""What sets the rows of a board apart beside their columns, and what they share unsaid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mlbench.boards.text import one_line
from mlbench.types import RunSpec

SHOWN = {"method", "seed", "settings.backbone", "settings.loss", "settings.image_size"}
SHOWN |= {"settings.epochs", "settings.head"}
"""Fields of a spec that have a column, or follow from one: a variant does not repeat them."""
TOLD = {
    "graph": ("identity", "random"),
    "words": ("random",),
    "settings.selection": ("validation", "test"),
}
"""Fields of a spec -> values that a variant names even where no other row differs in them."""


def variants(specs: Sequence[RunSpec]) -> list[str]:
    """For each, the settings in which it differs from its namesakes: ``optimizer.lr=0.001``."""
    plain = [flat(spec.model_dump(mode="json")) for spec in specs]
    namesakes: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, spec in enumerate(specs):
        namesakes[spec.method, spec.settings.backbone, spec.settings.loss].append(i)
    found = [""] * len(specs)
    for group in namesakes.values():
        names = sorted({name for i in group for name in plain[i]} - SHOWN)
        different = [n for n in names if len({str(plain[i].get(n)) for i in group}) > 1]
        for i in group:
            told = {n for n in names if plain[i].get(n) in TOLD.get(n, ())}.union(different)
            found[i] = ", ".join(
                f"{n.removeprefix('settings.')}={plain[i][n]}"
                for n in sorted(told)
                if n in plain[i]
            )
    return found


def flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted names: ``settings.optimizer.lr``."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def named(method: str, backbone: str, loss: str, variant: str = "") -> str:
    """A row in words, on one line: ``gap, resnet18, bce optimizer.lr=0.001``."""
    return one_line(f"{method}, {backbone}, {loss} {variant}")


def unsaid(specs: Sequence[RunSpec]) -> list[str]:
    """Options of heads and losses that no column and no variant shows, a line per method.

    A variant names what differs between rows of one method, backbone and loss. What all of those
    share would stay hidden, though it may set them apart from the method's other rows:
    ``gap: prior_bias=True (bce, focal)``.
    """
    shown = _shown_by_variants(specs)
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    losses: dict[str, set[str]] = defaultdict(set)
    for spec in specs:
        losses[spec.method].add(spec.settings.loss)
        for kind in ("head_options", "loss_options"):
            for name, value in flat(getattr(spec.settings, kind), f"settings.{kind}.").items():
                if (_namesake(spec), name) not in shown:
                    said = f"{name.split('.', 2)[2]}={value}"
                    found[spec.method][said].add(spec.settings.loss)
    return [
        f"{method}: "
        + ", ".join(_with_losses(o, found[method][o], losses[method]) for o in options)
        for method, options in sorted((m, sorted(o)) for m, o in found.items())
    ]


def _with_losses(option: str, some: set[str], every: set[str]) -> str:
    return option if some == every else f"{option} ({', '.join(sorted(some))})"


def _namesake(spec: RunSpec) -> tuple[str, str, str]:
    return spec.method, spec.settings.backbone, spec.settings.loss


def _shown_by_variants(specs: Sequence[RunSpec]) -> set[tuple[tuple[str, str, str], str]]:
    """(namesake, field) for all fields in which namesakes differ."""
    values: dict[tuple[tuple[str, str, str], str], set[str]] = defaultdict(set)
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    seen: dict[tuple[tuple[str, str, str], str], int] = defaultdict(int)
    for spec in specs:
        counts[_namesake(spec)] += 1
        for name, value in flat(spec.model_dump(mode="json")).items():
            values[_namesake(spec), name].add(str(value))
            seen[_namesake(spec), name] += 1
    return {key for key in values if len(values[key]) > 1 or seen[key] < counts[key[0]]}
