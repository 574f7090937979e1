"""Convert a state dict under its authors' names to the weights of one of our models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from mlbench import registry
from mlbench.text import shorten
from mlbench.types import PluginError, Recipe, Released, WeightsError, bare_names

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Converted:
    """A released state dict under our names.

    Attributes:
        backbone, head: the state dicts of our backbone and of our head.
        options: options of the head that follow from its shapes.
        unused: the authors' names that their own code never uses.
        key: key of the state dict in the file, empty for the top.
        dropped: what was dropped from the names in the file, such as ``module.``.
    """

    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    options: dict[str, Any]
    unused: tuple[str, ...]
    key: str = ""
    dropped: str = ""


def releases(method: str) -> tuple[Released, ...]:
    """The known releases of a method's authors.

    Raises:
        PluginError: nothing is known, or there is no such method.
    """
    if "recipe" not in registry.kinds_of(method):
        registry.find("head", method)
    elif found := _released(method):
        return found
    names = [plugin.name for plugin in registry.plugins("recipe") if _released(plugin.name)]
    raise PluginError(
        f"no published files of {method} are known; there are some of {', '.join(names)}"
    )


def _released(recipe: str) -> tuple[Released, ...]:
    found: Recipe = registry.find("recipe", recipe).load()
    return found.released


def recognise(method: str, state: State, source: object) -> tuple[Released, str, State]:
    """Find the release that a state dict belongs to, by its marks.

    Returns:
        The release, what was dropped from the names, and the tensors under the names left.

    Raises:
        WeightsError: it is no file of this method; the text names methods that it fits.
    """
    known = releases(method)
    forms = list(bare_names(state))
    for dropped, names in forms:
        for released in known:
            if marked(released, names):
                return released, dropped, names
    others = [
        plugin.name
        for plugin in registry.plugins("recipe")
        if plugin.name != method
        and any(marked(one, names) for one in _released(plugin.name) for _, names in forms)
    ]
    looks = f"it looks like one of {' or '.join(others)}; " if others else ""
    wanted = " or ".join(" with ".join(r.marks) for r in known)
    raise WeightsError(
        f"{source}: is no checkpoint of {method}: {looks}its names are {shorten(list(state))}, and "
        f"none matches {wanted}. Give the name of its method, or another file"
    )


def marked(released: Released, state: State) -> bool:
    """True if a state dict has the marks of a release."""
    return all(any(re.search(mark, key) for key in state) for mark in released.marks)


def convert(released: Released, state: State, source: object) -> Converted:
    """Divide a state dict into backbone and head.

    Raises:
        WeightsError: a name that an option of the head depends on is missing, or neither the
            authors' code nor ours uses some names.
    """
    try:
        options = released.options(state)
    except LookupError as error:
        raise WeightsError(
            f"{source}: {error} is missing among its {len(state)} names; give a whole file of "
            f"{released.title}"
        ) from error
    used = _used(released.trunk, state) | _used(released.head, state)
    rest = [key for key in state if key not in used]
    unused = tuple(key for key in rest if any(re.search(p, key) for p in released.unused))
    if left_over := [key for key in rest if key not in unused]:
        raise WeightsError(
            f"{source}: {len(left_over)} names have no place in {released.title}: "
            f"{shorten(left_over)}. It is of another version or method; give the file that the "
            "authors published"
        )
    return Converted(released.trunk(state), released.head(state), options, unused)


def _used(function: Callable[[State], dict[str, Tensor]], state: State) -> set[str]:
    """Names without which the function's result would differ."""
    given = function(state)
    passed_on = {id(value) for value in given.values()}
    used = {key for key, value in state.items() if id(value) in passed_on}
    for key in state.keys() - used:
        less = {name: value for name, value in state.items() if name != key}
        with suppress(LookupError, ValueError, RuntimeError, TypeError, WeightsError):
            if _same(function(less), given):
                continue
        used.add(key)
    return used


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        value is other[key] or torch.equal(value, other[key]) for key, value in one.items()
    )


def refuse_unfinite(converted: Converted, source: object) -> None:
    """Refuse weights of a training that diverged.

    Raises:
        WeightsError: a tensor has a value that is no finite number.
    """
    for name, value in [*converted.backbone.items(), *converted.head.items()]:
        if value.is_floating_point() and not value.isfinite().all():
            wrong = int((~value.isfinite()).sum())
            raise WeightsError(
                f"{source}: {name} has {wrong:,} of {value.numel():,} values that are NaN or "
                "infinite; give a checkpoint of a training that did not diverge"
            )


def count_labels(released: Released, head: State, source: object) -> tuple[int, str]:
    """The number of labels of a converted head, and the tensor that shows it.

    Raises:
        WeightsError: the head lacks that tensor.
    """
    pattern, axes = next(iter(released.label_axes.items()))
    for name, value in head.items():
        if fnmatchcase(name, pattern):
            return value.shape[axes[0]], f"{name} {list(value.shape)}"
    raise WeightsError(
        f"{source}: lacks the classifier ({pattern}); it is truncated, or no file of "
        f"{released.title}"
    )


def fill(model: nn.Module, state: State, source: object, released: Released | None = None) -> None:
    """Load converted weights into a part of a model, cast to the model's precision.

    Args:
        model: a backbone or a head.
        state: tensors under the model's names.
        source: what to call the file in errors.
        released: a head's release: buffers that a graph or word vectors fill may be missing.

    Raises:
        WeightsError: names are missing or unexpected, or a shape differs.
    """
    needs = released.needs.values() if released else ()
    optional = {name for buffers in needs for name in buffers}
    expected = model.state_dict()
    missing = [
        name
        for name in expected
        if name not in state
        and name not in optional
        # Frozen batch norms have no such counters, and nothing here reads them.
        and not name.endswith("num_batches_tracked")
    ]
    shapes = [
        f"{k} {list(state[k].shape)} instead of {list(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    wrong = {
        "missing": missing,
        "unexpected": [name for name in state if name not in expected],
        "of another shape": shapes,
    }
    if any(wrong.values()):
        faults = "; ".join(f"{len(v)} {what}: {shorten(v)}" for what, v in wrong.items() if v)
        raise WeightsError(
            f"{source}: does not fit {type(model).__name__}: {faults}. Give a whole file of this "
            "method, or head options that fit it (--option NAME=VALUE)"
        )
    model.load_state_dict(dict(state), strict=False)


def reorder(released: Released, head: State, order: Sequence[int]) -> dict[str, Tensor]:
    """Reorder the labels of a head's state dict: new label i is old label ``order[i]``."""
    if list(order) == list(range(len(order))):
        return dict(head)
    moved = dict(head if released.rearrange is None else released.rearrange(dict(head), order))
    index = torch.tensor(order)
    for name, value in moved.items():
        for pattern, axes in released.label_axes.items():
            if fnmatchcase(name, pattern):
                for axis in axes:
                    value = value.index_select(axis, index)
                moved[name] = value
                break
    return moved
