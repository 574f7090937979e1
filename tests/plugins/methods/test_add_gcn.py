"""ADD-GCN against its formulas written as loops, and what its head promises."""

import pytest
import torch
from torch.nn.functional import leaky_relu

from mlbench import registry, tracks
from mlbench.contracts.made_up import made_up_context
from mlbench.types import Level
from mlbench_plugins.methods.add_gcn import ADDGCN, SingleImageBatchNorm
from tests.plugins.methods.formulas import assert_same, largest, macs, pixels

SPEC = (Level(4, 16), Level(7, 32))


def randomised(count, width=5):
    torch.manual_seed(count)
    head = ADDGCN(SPEC, made_up_context(count), width=width).double()
    with torch.no_grad():
        head.context_norm.running_mean.normal_()
        head.context_norm.running_var.uniform_(0.5, 2)
        head.context_norm.weight.normal_()
        head.context_norm.bias.normal_()
    return head


def by_loops(head, x_BDHW):
    """Both scores of one image, label and position at a time, in evaluation."""
    n, d = head.context_norm, head.dynamic_adjacency
    both = []
    for image in x_BDHW:
        positions, count = pixels(image), len(head.scores.weight)
        scores = [head.scores(f) for f in positions]
        pooled = [max(s[c] for s in scores) for c in range(count)]
        nodes = [
            sum(s[c].sigmoid() * head.transform(f) for s, f in zip(scores, positions, strict=True))
            for c in range(count)
        ]
        static = []
        for c in range(count):
            mixed = sum(head.static_adjacency.weight[c, k] * nodes[k] for k in range(count))
            static.append(leaky_relu(head.static_weight(leaky_relu(mixed, 0.2)), 0.2))
        first = [v + s for v, s in zip(nodes, static, strict=True)]
        mean = head.context(sum(first) / count)
        mean = (mean - n.running_mean) / (n.running_var + n.eps).sqrt() * n.weight + n.bias
        mean = leaky_relu(mean, 0.2)
        graph = []
        for c in range(count):
            edges = d(torch.cat((mean, first[c]))).sigmoid()
            received = leaky_relu(sum(edges[k] * first[k] for k in range(count)), 0.2)
            z = nodes[c] + leaky_relu(head.dynamic_weight(received), 0.2)
            graph.append((head.classifier.weight[c] * z).sum() + head.classifier.bias[c])
        both.append((torch.stack(pooled), torch.stack(graph)))
    return [torch.stack(scores) for scores in zip(*both, strict=True)]


@pytest.mark.parametrize("count", [1, 4, 9])
def test_scores_and_gradients_are_those_of_the_formulas(count):
    head = randomised(count).eval()
    x = torch.randn(2, 7, 2, 3, dtype=torch.float64, requires_grad=True)
    fast, slow = head.both_scores((x,)), by_loops(head, x)
    torch.testing.assert_close(fast, tuple(slow), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head((x,)).logits, (slow[0] + slow[1]) / 2)
    assert_same(sum(fast), sum(slow), [x, *head.parameters()])


def test_one_image_is_normalised_by_the_running_statistics_and_leaves_them():
    norm = randomised(3).context_norm
    x = torch.randn(1, 5, dtype=torch.float64)
    state = {key: value.clone() for key, value in norm.state_dict().items()}
    torch.testing.assert_close(norm.train()(x), norm.eval()(x))
    for key, value in norm.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_two_images_are_normalised_by_their_own_statistics():
    norm, plain = SingleImageBatchNorm(5), torch.nn.BatchNorm1d(5)
    x = torch.randn(2, 5)
    assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm.running_var, plain.running_var)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_sums_over_thousands_of_labels_are_no_sums_in_half_precision(half):
    """As they are for 2000 labels of a real map, beyond the largest float16, 65504."""
    torch.manual_seed(0)
    head = ADDGCN(SPEC, made_up_context(2000), width=16).eval()
    with torch.no_grad():
        head.transform.bias.fill_(10)
        maps = (torch.randn(1, 7, 3, 3),)
        exact = head(maps).logits
        with torch.autocast("cpu", half):
            given = head(maps).logits
    torch.testing.assert_close(given, exact, rtol=0, atol=0.01 * exact.abs().max().item())


def test_memory_grows_with_the_square_of_the_labels_alone():
    """No tensor of B x C x C x K numbers."""
    head = ADDGCN(SPEC, made_up_context(60), width=16)
    assert largest(lambda: head((torch.randn(2, 7, 3, 4),)).logits) == 2 * 60 * 60


def test_flop_counters_see_the_whole_head():
    found = macs(randomised(3).eval(), torch.randn(1, 7, 2, 5, dtype=torch.float64))
    n, d, c, k = 10, 7, 3, 5
    attention = n * d * c + n * d * k + c * n * k
    static = c * c * k + c * k * k
    dynamic = k * k + c * k + c * k * c + c * c * k + c * k * k
    assert found == attention + static + dynamic + c * k


def test_the_square_that_crops_are_cut_from_follows_the_image_size():
    card = registry.find("dataset", "voc2007").load().card
    for size, square in ((448, 512), (224, 256)):
        given = tracks.settle("published", "add_gcn", "voc2007", card, [{"image_size": size}])
        assert given.augmentation[0].options["resize"] == square
