"""GRL against its formulas written as loops, and what its two streams promise."""

import pytest
import torch

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles, Level
from mlbench_plugins.methods.grl import GRL
from tests.plugins.methods.formulas import assert_same, decouple, macs, pass_messages, pixels

SPEC = (Level(8, 32),)
SMALL = {"label_dim": 4, "output_dim": 6, "downsample": 1}
MAPS = (torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0)),)


def make(labels=4, seed=0, **options):
    torch.manual_seed(seed)
    return GRL(SPEC, made_up_context(labels), **(SMALL | options))


def one_logit(classifier, c, o):
    if not hasattr(classifier, "angles"):
        return (classifier.weight[c] * o).sum() + classifier.bias[c]
    scale, exponent = classifier.angles
    cosine = (classifier.weight[c] * o).sum() / (classifier.weight[c].norm() * o.norm())
    return scale * (2 * ((cosine + 1) / 2) ** exponent - 1)


def by_loops(head, x_BDHW):
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
def test_forward_and_gradients_are_those_of_the_formulas(labels, options):
    head = make(labels, **options).double()
    if hasattr(head.classifier, "angles"):
        head.classifier.angles = Angles(scale=3.0, exponent=1.5)
    x = MAPS[0].double()
    fast, slow = head((x,)).logits, by_loops(head, x)
    with torch.no_grad():
        torch.testing.assert_close(head.eval()((x,)).logits, fast)
    assert_same(fast, slow, list(head.parameters()))


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
    found = macs(make().eval(), MAPS[0][:1])
    n, c, d, o = 15, 4, 8, 6
    fold = d * d + d
    decoupling = fold + n * c * d + c * n * d
    graph = 3 * (2 * c * c * d + 3 * c * 2 * d * d + 3 * c * d * d)
    assert found == decoupling + graph + c * 2 * d * o + c * o
