"""GRL against its formulas written as loops, and what its two streams promise."""

import copy
import math

import pytest
import torch

from mlbench.contracts.made_up import label_context
from mlbench.engine.flops import count
from mlbench.types import Angles, Level, PluginError
from mlbench_plugins.methods.grl import GRL

SPEC = (Level(8, 32),)
SMALL = {"label_dim": 4, "output_dim": 6, "downsample": 1}
MAPS = (torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0)),)


def make(labels=4, seed=0, **options):
    torch.manual_seed(seed)
    return GRL(SPEC, label_context(labels), **(SMALL | options))


# ---------------------------------------------------------------------------------- the formulas
def gated(ggnn, states, adjacency):
    """SSGRL's equation 6, one label at a time."""
    count_ = len(states)
    for _ in range(ggnn.time_steps):
        new = []
        for c in range(count_):
            sent = sum(adjacency[c][k] * states[k] for k in range(count_))
            received = sum(adjacency[k][c] * states[k] for k in range(count_))
            a, h = torch.cat((sent, received)), states[c]
            z = torch.sigmoid(ggnn.update_w(a) + ggnn.update_u(h))
            r = torch.sigmoid(ggnn.reset_w(a) + ggnn.reset_u(h))
            candidate = torch.tanh(ggnn.candidate_w(a) + ggnn.candidate_u(r * h))
            new.append((1 - z) * h + z * candidate)
        states = new
    return states


def one_logit(classifier, c, o):
    if not hasattr(classifier, "angles"):
        return (classifier.weight[c] * o).sum() + classifier.bias[c]
    scale, exponent = classifier.angles
    cosine = (classifier.weight[c] * o).sum() / (classifier.weight[c].norm() * o.norm())
    return scale * (2 * ((cosine + 1) / 2) ** exponent - 1)


def by_loops(head, x_BDHW):
    d, stream = head.decoupling, head.labels
    adjacency = stream.adjacency
    labels = [stream.project(word) for word in stream.words]
    if stream.ggnn is not None:
        labels = gated(stream.ggnn, labels, adjacency)
    labels = [stream.guide(label) for label in labels]
    logits = []
    for image in x_BDHW:
        pixels = list(image.flatten(1).T)
        features = []
        for label in labels:
            scores = [d.score(d.mix(torch.tanh(d.visual(f) * label))).squeeze() for f in pixels]
            alpha = torch.stack(scores).softmax(0)
            features.append(sum(a * f for a, f in zip(alpha, pixels, strict=True)))
        states = gated(head.ggnn, [head.project(x) for x in features], adjacency)
        outputs = [
            torch.tanh(head.output(torch.cat((h, x))))
            for h, x in zip(states, features, strict=True)
        ]
        logits.append(
            torch.stack([one_logit(head.classifier, c, o) for c, o in enumerate(outputs)])
        )
    return torch.stack(logits)


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (4, {}),
        (1, {"time_steps": 1, "classifier": "cosine"}),
        (5, {"intermediary_dim": 7, "hidden_dim": 3, "label_time_steps": 0}),
        (3, {"classifier": "cosine", "label_time_steps": 1, "hidden_dim": 5}),
    ],
)
def test_forward_and_gradients_are_those_of_the_formulas(labels, options):
    head = make(labels, **options).double()
    if hasattr(head.classifier, "angles"):
        head.classifier.angles = Angles(scale=3.0, exponent=1.5)
    x = MAPS[0].double()
    fast, slow = head((x,)).logits, by_loops(head, x)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(head.eval()((x,)).logits, fast)

    trained, weights = list(head.parameters()), torch.randn_like(fast)
    for pair in zip(
        torch.autograd.grad((weights * fast).sum(), trained, materialize_grads=True),
        torch.autograd.grad((weights * slow).sum(), trained, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(*pair, rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------------------ the two streams
def test_both_streams_run_on_the_graph():
    """Without edges, a label's word moves no other label's logit; with edges it does."""
    for edges in (False, True):
        head = make(3).train()
        head.labels.adjacency.fill_(0.5 if edges else 0.0)
        before = head(MAPS).logits
        head.labels.words[0] += 1
        moved = (head(MAPS).logits - before).abs().amax(0) > 1e-7
        assert moved.tolist() == ([True] * 3 if edges else [True, False, False])


def test_the_label_stream_is_a_constant_in_evaluation():
    """What an image costs is the decoupling, the second graph and the classifiers."""
    head = make().eval()
    macs = count(head, lambda: head((MAPS[0][:1],)), [MAPS[0][:1]], "head")
    n, c, d, o = 15, 4, 8, 6
    fold = d * d + d
    decoupling = fold + n * c * d + c * n * d
    graph = 3 * (2 * c * c * d + 3 * c * 2 * d * d + 3 * c * d * d)
    assert macs == decoupling + graph + c * 2 * d * o + c * o

    expected = head(MAPS).logits
    head.labels.ggnn = head.labels.guide = None  # what is not there cannot run
    torch.testing.assert_close(head(MAPS).logits, expected)


def test_the_constant_follows_the_weights():
    head, other = make().eval(), make(seed=1).eval()
    head.load_state_dict(copy.deepcopy(other.state_dict()))
    assert torch.equal(head(MAPS).logits, other(MAPS).logits)


def test_decoupling_in_the_visual_space_projects_labels_alone():
    names = {name for name, _ in make().decoupling.named_parameters()}
    assert names == {"mix.weight", "mix.bias", "score.weight", "score.bias"}
    assert make().labels.guide.weight.shape == (8, 4), "to the width of the features"
    joint = make(intermediary_dim=7)
    assert joint.decoupling.visual.weight.shape == (7, 8)
    assert joint.labels.guide.weight.shape == (7, 4)


def test_odd_maps_lose_no_pixel():
    head = make(downsample=2).eval()
    moved = MAPS[0].clone()
    moved[..., -1, :] += 1
    assert not torch.equal(head(MAPS).logits, head((moved,)).logits)


def test_cosines_stay_within_their_scale():
    logits = make(classifier="cosine")((MAPS[0] * 100,)).logits
    assert logits.abs().max() <= Angles().scale * (1 + 1e-5)
    assert math.isfinite(logits.sum().item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_dim": 0}, "label_dim=0"),
        ({"intermediary_dim": 0}, "intermediary_dim=0"),
        ({"hidden_dim": -1}, "hidden_dim=-1"),
        ({"time_steps": 0}, "time_steps=0"),
        ({"label_time_steps": -1}, "label_time_steps=-1"),
        ({"output_dim": 0}, "output_dim=0"),
        ({"downsample": 0}, "downsample=0"),
        ({"classifier": "mlp"}, "'mlp'; known: linear, cosine"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(PluginError, match=message):
        make(**options)
