"""SSGRL and GRL against their formulas written as loops, and what their heads promise."""

import pytest
import torch

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles, Level
from mlbench_plugins.layers import numerics
from mlbench_plugins.layers.decoupling import SemanticDecoupling, tanh_scores
from mlbench_plugins.methods.grl import GRL
from mlbench_plugins.methods.ssgrl import SSGRL
from tests.plugins.methods.formulas import assert_follows, assert_same, largest, macs, pixels

SMALL = {"output_dim": 6, "intermediary_dim": 7}


@pytest.fixture
def tiny_chunks(monkeypatch):
    """Chunks of a label or two, so that small tensors take the path of large ones."""
    monkeypatch.setattr(numerics, "CPU_ELEMENTS", 180)


def decouple(layer, positions, word):
    """SSGRL's equations 1 to 5 for one label's projected word, one position at a time."""
    scores = [layer.score(layer.mix(torch.tanh(layer.visual(f) * word))) for f in positions]
    alpha = torch.cat(scores).softmax(0)
    return sum(a * f for a, f in zip(alpha, positions, strict=True))


def pass_messages(ggnn, states, adjacency):
    """SSGRL's equation 6, one label at a time."""
    count = len(states)
    for _ in range(ggnn.time_steps):
        new = []
        for c, h in enumerate(states):
            sent = sum(adjacency[c][k] * states[k] for k in range(count))
            received = sum(adjacency[k][c] * states[k] for k in range(count))
            a = torch.cat((sent, received))
            z = torch.sigmoid(ggnn.update_w(a) + ggnn.update_u(h))
            recurrent = ggnn.update_u if ggnn.reset_uses_update_weights else ggnn.reset_u
            r = torch.sigmoid(ggnn.reset_w(a) + recurrent(h))
            candidate = torch.tanh(ggnn.candidate_w(a) + ggnn.candidate_u(r * h))
            new.append((1 - z) * h + z * candidate)
        states = new
    return states


def by_loops(head, x_BDHW):
    """Equations 1 to 8 for one image, one label and one position at a time."""
    logits = []
    words = [head.words.project(vector) for vector in head.words.vectors]
    for image in x_BDHW:
        first = [decouple(head.decoupling, pixels(image), word) for word in words]
        states = pass_messages(head.ggnn, first, head.adjacency)
        rows = []
        for c, both in enumerate(zip(states, first, strict=True)):
            o = torch.tanh(head.output(torch.cat(both)))
            rows.append((head.classifier.weight[c] * o).sum() + head.classifier.bias[c])
        logits.append(torch.stack(rows))
    return torch.stack(logits)


@pytest.mark.parametrize("slip", [True, False])
@pytest.mark.parametrize(("count", "steps"), [(1, 3), (4, 1), (5, 2)])
def test_forward_and_gradients_are_those_of_the_formulas(tiny_chunks, slip, count, steps):
    torch.manual_seed(count)
    options = {"time_steps": steps, "downsample": 1, "reset_uses_update_weights": slip, **SMALL}
    head = SSGRL((Level(8, 32),), made_up_context(count), **options).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    assert_follows(head, by_loops, x)
    fast = head((x,)).logits
    with torch.no_grad():
        torch.testing.assert_close(head((x,)).logits, fast)


def test_the_hand_written_gradient_is_right(tiny_chunks):
    generator = torch.Generator().manual_seed(0)
    arguments = [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in [(12, 5), (7, 5), (5,)]
    ]
    assert torch.autograd.gradcheck(tanh_scores, arguments)


def test_memory_does_not_grow_with_the_labels(tiny_chunks):
    """No tensor of B x N x C x K numbers, nor of B x N x C x D."""
    torch.manual_seed(0)
    layer = SemanticDecoupling(channels=16, joint=24)
    x = torch.randn(2, 16, 5, 6, requires_grad=True)
    most = {count: largest(lambda n=count: layer(x, torch.ones(n, 24))) for count in (3, 30)}
    pixels = 2 * 5 * 6
    assert most[30] <= max(pixels * 30, 2 * 30 * 16, pixels * 24)
    assert most[3] <= most[30] < pixels * 30 * 16


def test_flop_counters_see_all_but_the_projected_words():
    head = SSGRL((Level(8, 32),), made_up_context(3), time_steps=1, **SMALL).eval()
    found = macs(head, torch.randn(1, 8, 4, 4))
    n, c, d, k, o = 4, 3, 8, 7, 6
    semantic = n * d * k + k * k + n * c * k + c * n * d
    graph = 2 * c * c * d + 3 * c * 2 * d * d + 3 * c * d * d
    output = c * 2 * d * o + c * o
    shift = k  # the bias of the fold
    assert found == semantic + graph + output + shift


def test_odd_maps_lose_no_pixel():
    """A change in the last row of a 3 x 3 map changes the logits."""
    head = SSGRL((Level(8, 32),), made_up_context(3), **SMALL).eval()
    x = torch.randn(1, 8, 3, 3)
    moved = x.clone()
    moved[..., -1, :] += 1
    assert not torch.equal(head((x,)).logits, head((moved,)).logits)


def test_the_unused_gate_of_the_published_code_is_kept_but_not_trained():
    head = SSGRL((Level(8, 32),), made_up_context(3), reset_uses_update_weights=True, **SMALL)
    frozen = {name for name, p in head.named_parameters() if not p.requires_grad}
    assert frozen == {"ggnn.reset_u.weight", "ggnn.reset_u.bias"}


SPEC = (Level(8, 32),)
SMALL_GRL = {"label_dim": 4, "output_dim": 6, "downsample": 1}
MAPS = (torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0)),)


def grl(labels=4, seed=0, **options):
    torch.manual_seed(seed)
    return GRL(SPEC, made_up_context(labels), **(SMALL_GRL | options))


def one_logit(classifier, c, o):
    if not hasattr(classifier, "angles"):
        return (classifier.weight[c] * o).sum() + classifier.bias[c]
    scale, exponent = classifier.angles
    cosine = (classifier.weight[c] * o).sum() / (classifier.weight[c].norm() * o.norm())
    return scale * (2 * ((cosine + 1) / 2) ** exponent - 1)


def grl_by_loops(head, x_BDHW):
    stream = head.labels
    labels = [stream.project(word) for word in stream.words]
    if stream.ggnn is not None:
        labels = pass_messages(stream.ggnn, labels, stream.adjacency)
    logits = []
    for image in x_BDHW:
        found = [decouple(head.decoupling, pixels(image), stream.guide(x)) for x in labels]
        states = pass_messages(head.ggnn, [head.project(x) for x in found], stream.adjacency)
        outputs = [
            torch.tanh(head.output(torch.cat((h, x)))) for h, x in zip(states, found, strict=True)
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
def test_what_grl_computes_is_that_of_its_formulas(labels, options):
    head = grl(labels, **options).double()
    if hasattr(head.classifier, "angles"):
        head.classifier.angles = Angles(scale=3.0, exponent=1.5)
    x = MAPS[0].double()
    fast, slow = head((x,)).logits, grl_by_loops(head, x)
    with torch.no_grad():
        torch.testing.assert_close(head.eval()((x,)).logits, fast)
    assert_same(fast, slow, list(head.parameters()))


def test_both_streams_run_on_the_graph():
    """Without edges, a label's word moves no other label's logit; with edges it does."""
    for edges in (False, True):
        head = grl(3).train()
        head.labels.adjacency.fill_(0.5 if edges else 0.0)
        before = head(MAPS).logits
        head.labels.words[0] += 1
        moved = (head(MAPS).logits - before).abs().amax(0) > 1e-7
        assert moved.tolist() == ([True] * 3 if edges else [True, False, False])


def test_the_label_stream_is_a_constant_in_evaluation():
    """What an image costs is the decoupling, the second graph and the classifiers."""
    found = macs(grl().eval(), MAPS[0][:1])
    n, c, d, o = 15, 4, 8, 6
    fold = d * d + d
    decoupling = fold + n * c * d + c * n * d
    graph = 3 * (2 * c * c * d + 3 * c * 2 * d * d + 3 * c * d * d)
    assert found == decoupling + graph + c * 2 * d * o + c * o
