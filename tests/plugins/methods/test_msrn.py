"""MSRN against its formulas written as loops, and what its fast form promises."""

import pytest
import torch

from mlbench.contracts.made_up import features, made_up_context
from mlbench.types import Level, PluginError
from mlbench_plugins.layers import numerics
from mlbench_plugins.layers.channel_attention import channel_attention
from mlbench_plugins.methods.msrn import MSRN
from tests.plugins.methods.formulas import assert_same, attend, largest

SPEC = (Level(6, 8), Level(10, 16), Level(14, 32))


def plain(x_BDHW, labels_CD):
    """Softmax over the positions for each image, label and channel."""
    x_B1DN = x_BDHW.flatten(2)[:, None]
    return ((x_B1DN * labels_CD[..., None]).softmax(-1) * x_B1DN).sum(-1)


def by_loops(head, maps, ceil_mode=True):
    labels = head.branch.fc_label(head.branch.words)
    for layer in head.branch.label_embed:
        labels = attend(layer, labels, head.branch.edges)
    nodes = labels.relu()
    assignment = attend(head.branch.group_assign, nodes, head.branch.edges).softmax(1)
    groups = assignment.T @ attend(head.branch.group_embed, nodes, head.branch.edges)
    own = [int(a.argmax()) for a in assignment]
    group_loss = 1e-4 * sum((labels[i] - groups[g]).norm() for i, g in enumerate(own))
    scales = []
    for i, (x, project) in enumerate(zip(maps, head.project, strict=True)):
        buffered = head.buffer_convs[i](x) if i < 2 else x
        p = project(torch.nn.functional.max_pool2d(buffered, 2, ceil_mode=ceil_mode))
        scales.append(plain(p, torch.cat((labels, groups))))
    vectors = torch.cat(scales, -1).tanh()
    if hasattr(head.classifier, "fc1"):
        hidden = torch.nn.functional.leaky_relu(head.classifier.fc1(vectors.flatten(1)), 0.01)
        return head.classifier.fc2(hidden), group_loss
    count = len(labels)
    pairs = [torch.cat((vectors[:, c], vectors[:, count + own[c]]), -1) for c in range(count)]
    weight, bias = head.classifier.weight, head.classifier.bias
    logits = [(pairs[c] * weight[c]).sum(-1) + bias[c] for c in range(count)]
    return torch.stack(logits, -1), group_loss


@pytest.mark.parametrize(("classifier", "count"), [("mlp", 3), ("elementwise", 7), ("mlp", 1)])
def test_forward_is_that_of_the_formulas(classifier, count):
    torch.manual_seed(0)
    head = MSRN(SPEC, made_up_context(count), classifier=classifier, groups=min(2, count)).double()
    maps = tuple(m.double() for m in features(SPEC))
    output = head(maps)
    logits, group_loss = by_loops(head, maps)
    torch.testing.assert_close(output.logits, logits, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(output.aux["group"], group_loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize("budget", [1, 500, 1 << 20])
def test_channel_attention_and_its_gradients_are_those_of_the_softmax(monkeypatch, budget):
    monkeypatch.setattr(numerics, "CPU_ELEMENTS", budget)
    generator = torch.Generator().manual_seed(0)
    x, labels = (
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in [(2, 4, 3, 5), (7, 4)]
    )
    fast, slow = channel_attention(x, labels), plain(x, labels)
    with torch.no_grad():
        torch.testing.assert_close(channel_attention(x, labels), slow, rtol=1e-12, atol=1e-13)
    assert_same(fast, slow, [x, labels])


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_channel_attention_holds_for_any_size_of_scores(scale):
    """Scores of thousands overflow without the shift by their maximum."""
    generator = torch.Generator().manual_seed(0)
    x = scale * torch.randn(1, 4, 3, 3, generator=generator)
    labels = scale * torch.randn(5, 4, generator=generator)
    torch.testing.assert_close(channel_attention(x, labels), plain(x, labels))


def test_memory_does_not_grow_with_the_labels(monkeypatch):
    monkeypatch.setattr(numerics, "CPU_ELEMENTS", 1)
    x, labels = torch.randn(2, 8, 9, 9, requires_grad=True), torch.randn(40, 8)
    most = largest(lambda: channel_attention(x, labels))
    assert most <= 3 * max(x.numel(), 2 * labels.numel()) < x.numel() * len(labels)


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (5, 1), (11, 2), (20, 4), (80, 4), (81, 4)])
def test_the_number_of_groups_is_what_the_papers_ratios_give(count, groups):
    with torch.device("meta"):
        head = MSRN(SPEC, made_up_context(count))
    assert head.branch.nodes().groups.shape == (groups, 512)


def test_an_mlp_of_a_billion_weights_is_refused_with_its_remedy():
    with pytest.raises(PluginError, match=r"1\.59 billion.*classifier: elementwise"):
        MSRN(SPEC, made_up_context(500))
    with torch.device("meta"):
        MSRN(SPEC, made_up_context(500), classifier="elementwise")


def test_two_levels_are_too_few():
    with pytest.raises(PluginError, match="needs 3 feature levels and the backbone gives 2"):
        MSRN(SPEC[1:], made_up_context(5))


def test_more_levels_than_three_are_no_matter():
    """The last three count."""
    torch.manual_seed(0)
    three = MSRN(SPEC, made_up_context(3)).eval()
    four = MSRN((Level(4, 4), *SPEC), made_up_context(3)).eval()
    four.load_state_dict(three.state_dict())
    maps = features(SPEC)
    extra = torch.randn(2, 4, 24, 40)
    assert torch.equal(three(maps).logits, four((extra, *maps)).logits)
