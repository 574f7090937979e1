"""Every plugin that is installed keeps the contract of its kind."""

import pytest

from mlbench import contracts, registry

GIANTS = {"swin_large_384", "vit_base_384", "tresnet_l", "tresnet_v2_l", "resnet101", "resnet50"}
LISTED = [*registry.plugins(), registry.find("backbone", "timm:resnet10t")]


def parameter(plugin):
    marks = [pytest.mark.slow] if plugin.kind == "backbone" and plugin.name in GIANTS else []
    return pytest.param(plugin, id=f"{plugin.kind}-{plugin.label}", marks=marks)


@pytest.mark.parametrize("plugin", [parameter(p) for p in LISTED])
def test_it_keeps_its_contract(plugin):
    contracts.require(plugin)


def test_every_kind_has_checks_that_say_what_they_check():
    for checks in map(contracts.checks_of, registry.KINDS):
        assert len({check.__name__ for check in checks}) == len(checks) > 0
        assert all(check.__doc__ for check in checks)
