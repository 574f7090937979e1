"""What all heads of this project share: priors, thousands of labels, options that are refused."""

import math

import numpy as np
import pytest
import torch

from mlbench import registry
from mlbench.contracts.made_up import PYRAMID, features, known_context, made_up_context
from mlbench.types import PluginError
from mlbench_plugins.layers.constant import ConstantInEvaluation
from mlbench_plugins.layers.options import check_range

NAMES = [p.name for p in registry.plugins("head") if p.distribution == "mlbench-mlic"]
OPTIONS = {name: registry.options(registry.find("head", name).load()) for name in NAMES}
WITH_PRIOR = [name for name in NAMES if "prior_bias" in OPTIONS[name]]
LABELS = known_context(np.diag(np.float32([50, 20, 0])), np.ones((3, 4), np.float32))


def made(name, labels=LABELS, **options):
    return registry.find("head", name).load()(PYRAMID, labels, **options)


@pytest.mark.parametrize("name", WITH_PRIOR)
def test_where_weights_are_zero_the_logits_are_the_prior(name):
    linear = {"classifier": "linear"} if OPTIONS[name].get("classifier") == "cosine" else {}
    head = made(name, prior_bias=True, **linear)
    for key, value in head.named_parameters():
        if key.startswith("classifier") and key.endswith("weight"):
            value.data.zero_()
    with torch.no_grad():
        found = head.eval()(features(PYRAMID)).logits.sigmoid()
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.2, 1e-3]] * 2))


@pytest.mark.parametrize("name", [name for name in WITH_PRIOR if name != "msrn"])
def test_a_cosine_has_no_prior(name):
    with pytest.raises(PluginError, match="no bias of logits to start at the prior"):
        made(name, prior_bias=True, classifier="cosine")


@pytest.mark.parametrize("name", ["graph_branch", "grl", "ml_gcn", "msrn", "ssgrl"])
def test_what_depends_on_no_image_is_computed_once_for_evaluation(name):
    head = made(name, made_up_context(5)).eval()
    expected = head(features(PYRAMID)).logits
    with torch.autocast("cpu"):
        head.eval()  # renews what is constant
    constant = [part for part in head.modules() if isinstance(part, ConstantInEvaluation)]
    for part in constant:
        part.compute = None  # what is not there cannot run
    assert constant and torch.equal(head(features(PYRAMID)).logits, expected)
    assert not any(p.grad_fn for p in head.buffers())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_a_head_that_is_cast_takes_maps_of_its_type(name, dtype):
    head = made(name, made_up_context(5)).to(dtype).eval()
    with torch.no_grad():
        logits = head(tuple(x.to(dtype) for x in features(PYRAMID))).logits
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["ssgrl", "msrn"])
def test_maps_that_pooling_would_drop_are_refused_with_a_remedy(name):
    small = tuple(x[..., :1, :] for x in features(PYRAMID))
    said = rf"{name}: maps of 1 x \d+ .* downsample=2.*--set head_options.ceil_mode=true"
    with pytest.raises(PluginError, match=said):
        made(name, ceil_mode=False)(small)
    assert made(name, ceil_mode=True)(small).logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_labels_are_served(name):
    options = {"classifier": "elementwise"} if name == "msrn" else {}
    for chosen in [options] + [{"queries": "words"}] * (name == "ml_decoder"):
        with torch.device("meta"):
            head = made(name, made_up_context(5000), **chosen).eval()
            logits = head(features(PYRAMID, device="meta")).logits
        assert logits.shape == (2, 5000)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("add_gcn", {"width": 0}, r"add_gcn: width=0 must lie in \[1, inf\)"),
        ("c_tran", {"heads": 5}, "width of 48 .* heads=5; choose hidden_dim"),
        ("c_tran", {"most_known": 1.0}, r"c_tran: most_known=1.0 must lie in \[0, 1\)"),
        ("c_tran", {"layers": 0}, "layers=0"),
        ("csra", {"heads": 3}, "heads=3.*1, 2, 4, 6, 8 heads"),
        ("gap", {"classifier": "mlp"}, "unknown classifier 'mlp'; known: linear, cosine"),
        ("graph_branch", {"layer_type": "gcn"}, "'gcn'; known: graph convolution, graph attention"),
        ("graph_branch", {"threshold": 0.0}, r"threshold=0.0 must lie in \(0, 1\]"),
        ("graph_branch", {"graph": "rows"}, "unknown graph 'rows'; known: conditional"),
        ("graph_branch", {"counts": "boxes"}, "unknown counts 'boxes'; known: images, objects"),
        ("grl", {"hidden_dim": -1}, "hidden_dim=-1"),
        ("ml_decoder", {"groups": 0}, "groups=0"),
        ("ml_decoder", {"embedding_dim": 16, "heads": 3}, "16 channels cannot have 3 heads"),
        ("ml_decoder", {"queries": "glove"}, "'glove'; known: random, words"),
        ("ml_decoder", {"queries": "words", "groups": 3}, "groups=3 cannot be"),
        ("ml_decoder", {"queries": "words", "prior_bias": True}, "leave out prior_bias"),
        ("ml_gcn", {"p": -1}, "p=-1"),
        ("msrn", {"classifier": "conv"}, "'conv'; known: mlp, elementwise"),
        ("msrn", {"groups": 9}, r"groups=9 must lie in \[1, 3\]"),
        ("msrn", {"threshold": 0.0}, r"msrn: threshold=0.0 must lie in \(0, 1\]"),
        ("msrn", {"group_loss_weight": -1}, "group_loss_weight=-1"),
        ("query2label", {"hidden_dim": 10, "heads": 5}, "width of 10 .* multiple of 4"),
        ("query2label", {"heads": 5}, "width of 48 .* heads=5; choose hidden_dim"),
        ("query2label", {"decoder_layers": 0}, "decoder_layers=0"),
        ("ssgrl", {"downsample": 0}, "downsample=0"),
        ("transformer_head", {"classifier": "round"}, "'round'; known: linear, cosine"),
        ("zero_shot", {"scores": "softmaxx"}, "unknown scores 'softmaxx'; known: cosine, softmax"),
        ("zero_shot", {"scale": 0}, r"zero_shot: scale=0 must lie in \(0, inf\)"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, said):
    with pytest.raises(PluginError, match=said):
        made(name, **options)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0, 0.5, 1), (-0.1, 1.1, math.nan)),
        ("(0, 1)", (0.5,), (0, 1)),
        ("[1, inf)", (1, 7, None), (0, math.inf)),
    ],
)
def test_intervals_are_those_of_mathematics(interval, inside, outside):
    for value in inside:
        check_range("it", interval, size=value)
    for value in outside:
        with pytest.raises(PluginError, match=f"it: size={value} must lie in"):
            check_range("it", interval, size=value)
