"""From a state dict under its authors' names to the weights of one of our models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from mlbench import registry
from mlbench.types import PluginError, Recipe, Released, WeightsError

State = Mapping[str, Tensor]
SHOWN = 4
"""Names that a message lists before it only counts."""


@dataclass(frozen=True)
class Converted:
    """A released state in our terms.

    Attributes:
        backbone, head: what the state says of our backbone and of our head.
        options: options of the head that its shapes tell.
        unused: the authors' names that their own code never uses.
        left_over: names that neither it nor we know what to do with.
    """

    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    options: dict[str, Any]
    unused: tuple[str, ...]
    left_over: tuple[str, ...]


def releases(method: str) -> tuple[Released, ...]:
    """What is known of the files that a method's authors published.

    Raises:
        PluginError: nothing is; the methods of which something is known are named.
    """
    found = _released(method)
    if not found:
        names = [p.name for p in registry.plugins("recipe") if _released(p.name)]
        raise PluginError(
            f"no published files of {method} are known; there are some of {', '.join(names)}"
        )
    return found


def _released(method: str) -> tuple[Released, ...]:
    if "recipe" not in registry.kinds_of(method):
        registry.find("head", method)
        return ()
    recipe: Recipe = registry.find("recipe", method).load()
    return recipe.released


def recognise(method: str, state: State, source: object) -> Released:
    """The release that a state dict belongs to, by its marks.

    Raises:
        WeightsError: it is no file of this method; where it is one of another, that is named.
    """
    for released in releases(method):
        if marked(released, state):
            return released
    others = [
        plugin.name
        for plugin in registry.plugins("recipe")
        if plugin.name != method
        and any(marked(released, state) for released in _released(plugin.name))
    ]
    looks = f"it looks like one of {' or '.join(others)}; " if others else ""
    wanted = " or ".join(" with ".join(r.marks) for r in releases(method))
    raise WeightsError(
        f"{source}: is no checkpoint of {method}: {looks}its names are {few(state)}, and none "
        f"matches {wanted}. Give the name of its method, or another file"
    )


def marked(released: Released, state: State) -> bool:
    """Whether a state has the marks of a release."""
    return all(any(re.search(mark, key) for key in state) for mark in released.marks)


def convert(released: Released, state: State, source: object) -> Converted:
    """Sort a state into backbone and head, and find out what is left over.

    Raises:
        WeightsError: a name that tells an option of the head is missing.
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
    unused = [key for key in rest if any(re.search(p, key) for p in released.unused)]
    return Converted(
        backbone=released.trunk(state),
        head=released.head(state),
        options=options,
        unused=tuple(unused),
        left_over=tuple(key for key in rest if key not in unused),
    )


def _used(function: Callable[[State], dict[str, Tensor]], state: State) -> set[str]:
    """Names without which the function's result would be another."""
    given = function(state)
    passed_on = {id(value) for value in given.values()}
    used = {key for key, value in state.items() if id(value) in passed_on}
    for key in state.keys() - used:
        less = {name: value for name, value in state.items() if name != key}
        try:
            result = function(less)
        except (LookupError, ValueError, RuntimeError, TypeError, WeightsError):
            used.add(key)
            continue
        if not _same(result, given):
            used.add(key)
    return used


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        value is other[key] or torch.equal(value, other[key]) for key, value in one.items()
    )


def count_labels(released: Released, head: State, source: object) -> tuple[int, str]:
    """How many labels a converted head is for, and the tensor that says so.

    Raises:
        WeightsError: that tensor is not there.
    """
    pattern, axes = next(iter(released.label_axes.items()))
    for name, value in head.items():
        if fnmatchcase(name, pattern):
            return value.shape[axes[0]], f"{name} {list(value.shape)}"
    raise WeightsError(
        f"{source}: lacks the classifier ({pattern}); it is cut short, or no file of "
        f"{released.title}"
    )


def fill(model: nn.Module, state: State, source: object, optional: Iterable[str] = ()) -> None:
    """Load converted weights into a part of a model, cast to the model's precision.

    Args:
        model: a backbone or a head.
        state: under the model's names.
        source: what to call the file.
        optional: buffers that have been filled already.

    Raises:
        WeightsError: naming what is missing, too much, or of another shape.
    """
    expected = model.state_dict()
    missing = [
        name
        for name in expected
        if name not in state
        and name not in optional
        # Frozen batch norms have no such counters, and nothing here reads them.
        and not name.endswith("num_batches_tracked")
    ]
    strange = [k for k in state if k not in expected]
    shapes = [
        f"{k} {list(state[k].shape)} instead of {list(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    if missing or strange or shapes:
        wrong = {"missing": missing, "unexpected": strange, "of another shape": shapes}
        said = "; ".join(f"{len(v)} {what}: {few(v)}" for what, v in wrong.items() if v)
        raise WeightsError(
            f"{source}: does not fit {type(model).__name__}: {said}. Give a whole file of this "
            "method, or head options that fit it (--option NAME=VALUE)"
        )
    model.load_state_dict(dict(state), strict=False)


def from_labels(released: Released) -> list[str]:
    """Buffers of the head that graph and words may fill."""
    return [name for names in released.needs.values() for name in names]


def reorder(released: Released, head: State, order: Sequence[int]) -> dict[str, Tensor]:
    """A head's state with its labels in another order: new label i is old label ``order[i]``."""
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


def few(names: Iterable[str]) -> str:
    """The first of them, in a line."""
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")
