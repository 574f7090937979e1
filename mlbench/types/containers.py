"""State dicts in the checkpoints of other training code: where they are, and their names.

The caller tells tensors from other values, as no module of this folder imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlbench.types.errors import WeightsError

CONTAINERS = {
    *("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network"),
    *("weights", "params", "ema", "state_dict_ema", "ema_state_dict", "model_ema", "ema_model"),
    *("params_ema", "shadow", "averaged"),
}
"""Usual keys of state dicts; under another key, a state dict is recognised by dots in its names."""
_DEPTH = 3
_AVERAGE = re.compile(r"ema|averag|shadow|swa", re.IGNORECASE)
_WRAPPER = re.compile(
    r"(?:^module|(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module))\."
)
"""The parts that DataParallel, torch.compile and sharding add to names."""


def state_dict_in(
    content: Any,
    is_tensor: Callable[[Any], bool],
    source: object,
    choose: Callable[[str], str],
    key: str | None = None,
    averaged: bool = False,
) -> tuple[str, dict[str, Any]]:
    """Find the key of a checkpoint's state dict, empty for the top, and its tensors by name.

    Args:
        content: the content of the file.
        is_tensor: tells tensors from other values.
        source: what to call the file in errors.
        choose: key -> advice on how to choose it, for the error that there are several.
        key: key of the wanted state dict; inner keys follow after a dot.
        averaged: True to advise averaged weights if there are several.

    Raises:
        WeightsError: there is none, none under the key, or several and no key.
    """
    found = dict(_state_dicts(content, is_tensor, "", _DEPTH))
    if len(found) > 1 and not any("." in name for name in found.get("", ())):
        found.pop("", None)  # numbers beside them, such as the best score
    if not found:
        keys = ", ".join(map(str, content)) if isinstance(content, Mapping) else "no keys"
        raise WeightsError(
            f"{source}: holds no state dict, neither at the top nor under a usual key; it is a "
            f"{type(content).__name__} of {keys:.200}. Give the checkpoint that its authors "
            "published"
        )
    listed = ", ".join(f"{one or 'the top'} ({len(t)} tensors)" for one, t in found.items())
    inner = [one for one in found if one.startswith(f"{key}.")]
    if key not in found and len(inner) == 1:
        key = inner[0]
    if key is not None and key not in found:
        raise WeightsError(f"{source}: holds no state dict {key!r}; it holds {listed}")
    if key is None and len(found) > 1:
        best = [one for one in found if averaged and _AVERAGE.search(one)] or list(found)
        raise WeightsError(f"{source}: holds {len(found)} state dicts: {listed}; {choose(best[0])}")
    chosen = next(iter(found)) if key is None else key
    return chosen, found[chosen]


def _state_dicts(
    content: Any, is_tensor: Callable[[Any], bool], path: str, depth: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(content, Mapping):
        return
    tensors = {name: v for name, v in content.items() if isinstance(name, str) and is_tensor(v)}
    usual = not path or path.rpartition(".")[2].lower() in CONTAINERS
    if tensors and (usual or any("." in name for name in tensors)):
        yield path, tensors
    for name, value in content.items() if depth else ():
        if isinstance(name, str):
            yield from _state_dicts(value, is_tensor, f"{path}.{name}".lstrip("."), depth - 1)


def bare_names(state: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what was dropped from the names of a state dict, and the state under what is left.

    The names first lose the names of wrappers, then their first part, and the next one, as long
    as all names share it. The caller takes the first state whose names it knows.
    """
    dropped: dict[str, None] = {}
    names = {}
    averaged = "n_averaged" in state  # of torch.optim.swa_utils.AveragedModel
    for name in state:
        short = name
        while (now := _WRAPPER.sub("", short)) != short:
            dropped |= dict.fromkeys(_WRAPPER.findall(short))
            short = now
        if not (averaged and name == "n_averaged"):
            names[name] = short
    while True:
        yield "".join(dropped), {short: state[name] for name, short in names.items()}
        first = {short.partition(".")[0] for short in names.values()}
        if len(first) != 1 or not all("." in short for short in names.values()):
            return
        dropped[f"{first.pop()}."] = None
        names = {name: short.partition(".")[2] for name, short in names.items()}
