"""A loss on angles and its head agree on scale and exponent, or are refused when planned."""

import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from mlbench import plan, suite
from mlbench.build import build, feature_identity, meta_backbone, restore
from mlbench.contracts.made_up import known_context
from mlbench.engine.checkpoint import Checkpoint
from mlbench.engine.model import unregistered
from mlbench.preflight import refusal
from mlbench.types import Angles, Index, ModelInfo, Places, PluginError, Settings, Splits
from tests.engine import tiny
from tests.store.made import CARD, made_record

LABELS = known_context(np.diag([5.0, 3.0, 2.0]).astype(np.float32), np.eye(3, 4), 10)
PLACES = Places(results=Path("results"), cache=Path("cache"))
COSINE = {"classifier": "cosine"}


def settings(head="gap", **changes):
    fields = {"head": head, "backbone": "timm:test_resnet", "weights": "none", "image_size": 64}
    return Settings.model_validate(fields | {"loss": "aam"} | changes)


def angles_of(model):
    return [m.angles for m in model.head.modules() if hasattr(m, "angles")]


@pytest.mark.parametrize("options", [{}, {"classifier": "linear"}])
def test_a_loss_on_angles_is_refused_with_plain_logits(options):
    shown = re.escape(str(options)) if options else "its default options"
    remedy = "; give `--set head_options.classifier=cosine`, or another loss"
    with pytest.raises(
        PluginError, match=f"loss aam works on angles, and head gap with {shown} .*{remedy}"
    ):
        build(settings(head_options=options), LABELS, PLACES)


def test_a_head_that_has_no_angles_is_refused_with_the_names_of_those_that_have():
    with pytest.raises(PluginError, match=r"take a head of .*, with `--set") as refused:
        build(settings("csra"), LABELS, PLACES)
    heads = str(refused.value).partition("head of ")[2].partition(", with")[0].split(", ")
    assert {"gap", "ssgrl", "ml_gcn", "transformer_head"} < set(heads)
    for head in heads:
        assert angles_of(build(settings(head, head_options=COSINE), LABELS, PLACES)[0])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({}, Angles(23, 1)),
        ({"loss_options": {"s": 17}}, Angles(17, 1)),
        ({"loss_options": {"s": 30, "t": 3}}, Angles(30, 3)),
        ({"loss": "bce"}, Angles()),
        ({"loss": "asl"}, Angles()),
    ],
)
def test_scale_and_exponent_of_the_loss_reach_the_classifier(loss, expected):
    model, made = build(settings(head_options=COSINE, **loss), LABELS, PLACES)
    assert getattr(made, "angles", Angles()) == expected, "a loss on logits has none"
    assert angles_of(model) == [expected]


@pytest.mark.parametrize("place", ["__init__", "impl", "deep/er"])
def test_maps_are_of_a_backbone_whose_package_is_unchanged(place, install):
    """However its modules import each other, none of which is imported for this."""
    package = install("acme", "", "[mlbench.backbones]\nown = acme.plugin:make").with_name("acme")
    (package / "deep").mkdir(parents=True)
    for name in ("__init__", "plugin", "impl", "deep/er"):
        (package / f"{name}.py").write_text("from . import impl\n")
    spec = made_record("gap", settings={"backbone": "own"}).spec
    before = feature_identity(spec, tiny.model())
    assert feature_identity(spec, tiny.model()) == before
    (package / f"{place}.py").write_text("SCALE = 2\n")
    changed = feature_identity(spec, tiny.model())
    assert changed["source"] != before["source"]
    assert changed | {"source": before["source"]} == before


INDEX = Index(["x", "y"], ["x", "y"], np.array([[1, 1], [0, 0]], np.int8))
SPLITS = Splits(CARD, ("a", "b"), INDEX, INDEX, "0", "mine")


def matrix(changes=(), **fields):
    """The runs of ``gap`` with these axes and settings."""
    chosen = {"backbone": "timm:test_resnet", "weights": "none", "image_size": 64, **dict(changes)}
    fields = {"methods": ("gap",), "settings": chosen, **fields}
    specs, refused = plan.expand(suite.make_suite(fields), lambda *_: SPLITS)
    assert not refused
    return specs


@pytest.mark.parametrize(
    ("axis", "said"), [("methods", "self.layers holds a Linear"), ("losses", "its weight, bias")]
)
def test_parts_that_are_not_trained_or_saved_are_refused_when_planned(axis, said, install):
    source = """
from torch import nn
class Head(nn.Module):
    def __init__(self, spec, labels):
        super().__init__()
        self.layers = [nn.Linear(1, 1)]
def loss(labels): return nn.Linear(1, 1)
"""
    install("acme", source, "[mlbench.heads]\nacme = acme:Head\n[mlbench.losses]\nacme = acme:loss")
    (spec,) = matrix(**{axis: ("acme",)})
    assert said in refusal(spec, lambda _: SPLITS, PLACES)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_torch_makes_of_parameters_are_no_stray_tensors(norm):
    assert unregistered(getattr(nn.utils, norm)(nn.Linear(2, 2))) == ("", "")


def test_a_model_of_a_plugin_that_is_gone_names_its_package():
    (spec,) = matrix()
    spec = spec.model_copy(update={"settings": spec.settings.model_copy(update={"head": "gone"})})
    of = {"plugins": {"head gone": "acme 1.0"}, "preprocessing": spec.settings.preprocessing}
    lost = Checkpoint({}, ModelInfo(spec=spec, label_names=("a",), **of))
    with pytest.raises(PluginError, match=r"unknown head 'gone'.*install acme 1.0"):
        restore(lost)


def planned(losses, **changes):
    """Loss -> why its run with ``gap`` cannot be made, None if it can."""
    specs = matrix(changes, losses=losses)
    return {spec.settings.loss: refusal(spec, lambda _: SPLITS, PLACES) for spec in specs}


EVERY = ("bce", "weighted_bce", "focal", "asl", "aam")
FEW = {"image_size": 32, "batch_size": 2}
ONE = {"image_size": 32, "batch_size": 1}
ADDED_UP = r"neither a mean nor a sum.*--set grad_accumulation=1"
SMALL = r"a batch has 2 images in 2 parts.*give --image-size 64$"


@pytest.mark.parametrize(
    ("losses", "changes", "said"),
    [
        (("aam", "asl"), {}, {"aam": "loss aam works on angles, and head gap"}),
        (EVERY, {"head_options": COSINE}, {}),
        (("large_loss", "hill"), {"grad_accumulation": 2}, {"large_loss": ADDED_UP}),
        (("bce",), {"frozen_stages": 99}, {"bce": "but timm:test_resnet has"}),
        (("bce",), {"frozen_stages": -1}, {}),
        (("bce",), FEW, {}),
        (("bce",), FEW | {"grad_accumulation": 2}, {"bce": SMALL}),
        (("bce",), ONE, {"bce": "a single value of each channel"}),
        (("bce",), ONE | {"frozen_stages": -1}, {}),
        (("bce",), ONE | {"freeze_bn": True}, {}),
    ],
)
def test_a_plan_refuses_what_cannot_be_trained_and_keeps_the_others(losses, changes, said):
    reasons = planned(losses, **changes)
    assert reasons.keys() == set(losses)
    assert {loss for loss, reason in reasons.items() if reason} == said.keys()
    assert all(re.search(text, reasons[loss]) for loss, text in said.items()), reasons


def test_planning_leaves_the_backbone_that_runs_share_as_it_is():
    shared = meta_backbone("timm:test_resnet", 64)
    before = [(name, value.requires_grad) for name, value in shared.named_parameters()]
    assert planned(("bce",), frozen_stages=2) == {"bce": None}
    assert meta_backbone("timm:test_resnet", 64) is shared and not shared.training
    assert [(name, value.requires_grad) for name, value in shared.named_parameters()] == before
    model, _ = build(settings(loss="bce"), LABELS, PLACES)
    assert model.backbone is not shared, "a run has a backbone of its own"
