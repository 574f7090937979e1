"""The models that a command line names: methods with the options that a track gives their heads."""

from __future__ import annotations

from mlbench.suite import make_suite
from mlbench.tracks import recipe_of, settle
from mlbench.types import DatasetCard, Settings, SuiteError, Track

NO_DATA = DatasetCard(title="", bibtex="", licence="", home="")
"""A card without a budget: head options depend on method and track only."""


def read_models(
    plugins: str, backbones: str | None, track: Track | None
) -> tuple[dict[str, Settings], tuple[str, ...]]:
    """Read the flags ``--plugins``, ``--backbones`` and ``--track``.

    Returns:
        Method -> settings, of which only the head and its options matter (those of the recipe
        without a track), and the backbones.

    Raises:
        SuiteError: a loss or a data set is named.
        PluginError: a name is unknown.
    """
    suite = make_suite({"plugins": plugins, "backbones": backbones or ""})
    if others := (*suite.losses, *suite.datasets):
        raise SuiteError(
            f"--plugins: {', '.join(others)} costs nothing at inference; name methods and backbones"
        )
    heads = {
        method: settle(track, method, "", NO_DATA) if track else recipe_of(method).settings
        for method in suite.methods
    }
    return heads, suite.backbones
