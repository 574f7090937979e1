"""Authors' names of tensors to ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors that ``names`` speaks of, under our names; all others are passed over.

    Args:
        state: authors' names, perhaps behind ``module.``, to tensors.
        names: a tensor's name there, or a module's, which stands for all that is below it -> what
            it is called here.
    """
    found = {}
    for key, value in state.items():
        bare = key.removeprefix("module.")
        for theirs, ours in names.items():
            if bare == theirs or bare.startswith(f"{theirs}."):
                found[ours + bare.removeprefix(theirs)] = value
    return found
