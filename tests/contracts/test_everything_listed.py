"""Every plugin that is installed keeps the contract of its kind."""

from dataclasses import replace
from functools import partial

import pytest

from mlbench import contracts, registry
from mlbench_plugins.datasets.synthetic import Synthetic

GIANTS = {"swin_large_384", "vit_base_384", "tresnet_l", "tresnet_v2_l", "resnet101", "resnet50"}
SIBLINGS = {"dinov3_base", "siglip2_base_512", "efficientnet_lite2", "tresnet_xl"}
"""Larger backbones of an architecture that another listed one has."""
LISTED = [*registry.plugins(), registry.find("backbone", "timm:resnet10t")]

few_pictures = partial(Synthetic, train_images=40, test_images=20, size=32)


def parameter(plugin):
    slow = plugin.kind == "backbone" and plugin.name in GIANTS | SIBLINGS
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(plugin, id=f"{plugin.kind}-{plugin.label}", marks=marks)


@pytest.mark.parametrize("plugin", [parameter(p) for p in LISTED])
def test_it_keeps_its_contract(plugin):
    if plugin.name == "synthetic":  # whose 1,800 pictures take seconds to draw
        assert plugin.load() is few_pictures.func
        plugin = replace(plugin, value=f"{__name__}:few_pictures")
    contracts.require(plugin)


def test_every_kind_has_checks_that_say_what_they_check():
    for checks in map(contracts.checks_of, registry.KINDS):
        assert len({check.__name__ for check in checks}) == len(checks) > 0
        assert all(check.__doc__ for check in checks)
