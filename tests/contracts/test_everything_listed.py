"""Plugins keep the contract of their kind: all that are installed, and the README's examples."""

import re
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from mlbench import contracts, registry
from mlbench.contracts.made_up import PYRAMID, features, made_up_context, targets
from mlbench.types import LossContext, evaluate_loss
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


PARTS = [(p.kind, p.name) for kind in ("head", "loss") for p in registry.plugins(kind)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_everything_stays_on_the_device_of_the_inputs(kind, name):
    given = [PYRAMID] * (kind == "head") + [made_up_context(5)]
    made, maps, labels = registry.make(kind, name, given, {}), features(PYRAMID), targets(2, 5)
    part = torch.nn.ModuleList([made] * isinstance(made, torch.nn.Module))
    with FakeTensorMode():
        cuda = lambda x: x if x is None else torch.empty(x.shape, dtype=x.dtype, device="cuda")  # noqa: E731
        for tensors in [kept for m in part.modules() for kept in (m._parameters, m._buffers)]:
            tensors |= {key: cuda(x) for key, x in tensors.items()}
        for training in (True, False):
            part.train(training)
            if kind == "head":
                found = made([*map(cuda, maps)]).logits
            else:
                found = evaluate_loss(made, cuda(labels).float(), cuda(labels), LossContext(2, 2))
            assert found.is_cuda


PAGE = (Path(__file__).parents[2] / "plugins" / "README.md").read_text()


@pytest.fixture
def acme(install):
    """A distribution of all examples, registered as the page says."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (registered,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    groups = tomllib.loads(registered)["project"]["entry-points"]
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    install("acme", "\n\n".join(blocks), "\n".join(lines))
    return groups


def test_there_is_one_example_of_each_kind(acme):
    kinds = ("heads", "losses", "backbones", "datasets", "commands", "trackers")
    assert acme.keys() == {f"mlbench.{kind}" for kind in kinds}


@pytest.mark.parametrize("name", ["top_mean", "hinge", "patches", "stripes"])
def test_the_checks_pass(acme, cli, name):
    cli("check", name).ok()


def test_the_command_prints_what_the_page_says(acme, cli):
    said = re.search(r"`\$ mlbench (parameters top_mean)` then prints (\d+)", PAGE)
    assert cli(*said[1].split()).out.strip() == said[2]


def test_they_run_together(acme, cli, tmp_path):
    chosen = ("--plugins", "top_mean,hinge,stripes", "--tracker", "notebook")
    cli("run", *chosen, "--seeds", "0", "--set", "measure=false").ok()
    notes = (tmp_path / "results/notebook.txt").read_text()
    told = [line.split()[0] for line in notes.splitlines()]
    assert [told[0], *told[-2:]] == ["runs", "epoch", "record"] and "step" in told
