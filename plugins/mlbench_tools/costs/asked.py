"""The models that a command line names: methods with the options that a track gives their heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mlbench import registry
from mlbench.suite import make_suite
from mlbench.tracks import recipe_of, settle
from mlbench.types import DatasetCard, Network, Settings, SuiteError, Track, computing_options
from mlbench_tools.costs.counting import uniform_context

NO_DATA = DatasetCard(title="", bibtex="", licence="", home="")
"""A card without a budget: head options depend on method and track only."""

DEFAULT_BACKBONE = "resnet101"


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


def describe(
    head: str, options: Mapping[str, Any], labels: int, backbone: str, image_size: int, weights: str
) -> Network:
    """The network of a head on a backbone, built on the ``meta`` device.

    Raises:
        PluginError: a plugin is unknown or broken, or cannot serve the case.
        WeightsError: the file does not fit the backbone.
    """
    with torch.device("meta"):
        trunk = registry.find("backbone", backbone).load()(weights=weights, image_size=image_size)
        context = uniform_context(labels)
        made = registry.make("head", head, (trunk.spec, context), options)
    return Network(
        backbone=backbone,
        backbone_options=dict(getattr(trunk, "options", {})),
        head=head,
        head_options=computing_options(registry.with_defaults("head", head, options)),
        labels=labels,
        image_size=image_size,
        parameters=sum(p.numel() for module in (trunk, made) for p in module.parameters()),
    )
