"""The graph branch and ADD-GCN against their formulas, and what a constant promises."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import leaky_relu
from torch.optim.swa_utils import AveragedModel

from mlbench import registry, tracks
from mlbench.contracts.made_up import known_context, made_up_context
from mlbench.engine.cost import count
from mlbench.types import Level
from mlbench_plugins.layers.graph_layers import GraphAttention
from mlbench_plugins.layers.label_graph import symmetrically_normalised
from mlbench_plugins.methods.add_gcn import ADDGCN, SingleImageBatchNorm
from mlbench_plugins.methods.graph_branch import GraphBranch, from_authors
from tests.plugins.methods.formulas import assert_same, attend, largest, macs, pixels

SPEC = (Level(8, 32),)
MAPS = (torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0)),)
KINDS = ("graph convolution", "graph attention")


def make(labels=5, seed=0, **options):
    torch.manual_seed(seed)
    return GraphBranch(SPEC, made_up_context(labels), **options)


def disturb(head):
    """Other parameters, written in place as an optimiser does."""
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))


def in_training(head):
    """Logits from the parameters as they are."""
    return copy.deepcopy(head).train()(MAPS).logits.detach()


def by_loops(head, layer_type, pooling, last_sigmoid, maps):
    gate, nodes = head.gate, head.gate.words
    for layer in gate.layers:
        if layer_type == "graph attention":
            nodes = attend(layer, nodes, gate.adjacency > 0)
        else:
            nodes = torch.stack(
                [sum(a * (x @ layer.weight) for a, x in zip(row, nodes, strict=True))
                 for row in gate.adjacency]
            )  # fmt: skip
        nodes = torch.where(nodes > 0, nodes, 0.2 * nodes)
    pooled = {"max": nodes.max(0).values, "avg": nodes.sum(0) / len(nodes)}
    pooled["sum"] = pooled["max"] + pooled["avg"]
    weights = pooled[pooling]
    weights = 1 / (1 + (-weights).exp()) if last_sigmoid else weights
    weighed = maps[0] * weights[None, :, None, None]
    return head.classifier(weighed.mean((2, 3)))


@pytest.mark.parametrize("layer_type", KINDS)
@pytest.mark.parametrize(
    ("labels", "layers", "rho", "pooling", "last_sigmoid"),
    [(1, 1, 0.25, "max", True), (6, 2, 0.0, "avg", False), (9, 3, 0.2, "sum", True)],
)
def test_logits_and_gradients_are_those_of_the_formulas(
    layer_type, labels, layers, rho, pooling, last_sigmoid
):
    options = {"layer_type": layer_type, "layers": layers, "rho": rho, "label_pooling": pooling}
    options |= {"last_sigmoid": last_sigmoid, "hidden_dim": 7, "dropout": 0.0}
    head = make(labels, **options).double()
    maps = (MAPS[0].double(),)
    found = head(maps).logits
    expected = by_loops(head, layer_type, pooling, last_sigmoid, maps)
    assert_same(found, expected, list(head.parameters()))


def test_a_label_never_seen_has_finite_weights_without_rho():
    labels = known_context(np.zeros((2, 2), np.float32), np.ones((2, 3), np.float32))
    for kind in KINDS:
        head = GraphBranch(SPEC, labels, layer_type=kind, rho=0.0).eval()
        assert head(MAPS).logits.isfinite().all()


def test_dropout_is_of_training_alone():
    head = make(9, layer_type="graph attention", dropout=0.5, rho=9.0, threshold=0.01)
    assert not torch.equal(head(MAPS).logits, head(MAPS).logits)
    assert torch.equal(head.eval()(MAPS).logits, head(MAPS).logits)
    assert all(isinstance(m, GraphAttention) and m.dropout == 0.5 for m in head.gate.layers)


def test_the_graph_costs_nothing_in_evaluation():
    head = make(layers=3).eval()
    assert count(head, lambda: head(MAPS), MAPS, "head") == 2 * 8 * 5, "only the classifier works"


def test_training_goes_on_from_the_parameters():
    head = make().eval()
    before = head(MAPS).logits
    head.train()
    disturb(head)
    assert not torch.allclose(head(MAPS).logits, before)
    torch.testing.assert_close(head.eval()(MAPS).logits, in_training(head))


@pytest.mark.parametrize("inside", [False, True], ids=["the head", "a model around it"])
@pytest.mark.parametrize("assign", [False, True])
def test_weights_loaded_in_evaluation_count_at_once(inside, assign):
    head, other = make().eval(), make(seed=1).eval()
    target, source = (torch.nn.Sequential(h) if inside else h for h in (head, other))
    target.load_state_dict(copy.deepcopy(source.state_dict()), assign=assign)
    assert torch.equal(head(MAPS).logits, other(MAPS).logits)


def test_the_constant_is_in_no_state_dict():
    head = make().eval()
    names = {f"gate.{n}" for n in ("words", "adjacency", "layers.0.weight", "layers.1.weight")}
    assert set(head.state_dict()) == names | {"classifier.weight", "classifier.bias"}


def test_a_moving_average_is_evaluated_with_the_weights_that_it_holds():
    head = make().train()
    average = AveragedModel(head, use_buffers=True)
    for _ in range(3):
        disturb(head)
        average.update_parameters(head)
        averaged = average.module.eval()
        torch.testing.assert_close(averaged(MAPS).logits, in_training(averaged))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_program_holds_the_constant(kind):
    def products(head):
        program = torch.export.export(head, (MAPS,))
        named = [node for node in program.graph.nodes if "matmul" in str(node.target)]
        return program.module(), len(named)

    head = make(layer_type=kind)
    assert products(head)[1] >= 4, "two layers of two products, or more"
    exported, left = products(head.eval())
    assert left == 0
    torch.testing.assert_close(exported(MAPS).logits, head(MAPS).logits)


@pytest.mark.parametrize("rho", [0.25, 0.0])
@pytest.mark.parametrize("normalised", [True, False])
def test_the_authors_graph_is_taken_normalised_or_not(rho, normalised):
    edges = (torch.rand(7, 7, generator=torch.Generator().manual_seed(1)) < 0.4).double()
    edges.fill_diagonal_(0)
    plain = edges * rho / (edges.sum(0) + 1e-6) + torch.eye(7) if rho else edges
    given = symmetrically_normalised(plain) if normalised else plain
    found = from_authors({"module.A": given})["gate.adjacency"]
    torch.testing.assert_close(found, symmetrically_normalised(plain).to(found.dtype))


def test_every_key_of_the_authors_has_a_place():
    state = {"gc1.W": 1, "gc1.a": 2, "gc3.weight": 3, "inp": 4, "head.bias": 5}
    authors = {f"module.{k}": torch.full((2, 2), float(v)) for k, v in state.items()}
    found = from_authors(authors | {"backbone.model.conv_stem.weight": torch.zeros(1)})
    assert {name: value[0, 0].item() for name, value in found.items()} == {
        "gate.layers.0.W": 1,
        "gate.layers.0.a": 2,
        "gate.layers.2.weight": 3,
        "gate.words": 4,
        "classifier.bias": 5,
    }


def test_only_the_cosine_output_is_stored_the_other_way():
    weight = torch.randn(8, 5)
    cosine = from_authors({"head.weight": weight})["classifier.weight"]
    linear = from_authors({"head.weight": weight.T, "head.bias": torch.zeros(5)})
    assert torch.equal(cosine, weight.T) and torch.equal(linear["classifier.weight"], weight.T)


TWO_LEVELS = (Level(4, 16), Level(7, 32))


def randomised(count, width=5):
    torch.manual_seed(count)
    head = ADDGCN(TWO_LEVELS, made_up_context(count), width=width).double()
    with torch.no_grad():
        head.context_norm.running_mean.normal_()
        head.context_norm.running_var.uniform_(0.5, 2)
        head.context_norm.weight.normal_()
        head.context_norm.bias.normal_()
    return head


def add_gcn_by_loops(head, x_BDHW):
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
    fast, slow = head.both_scores((x,)), add_gcn_by_loops(head, x)
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
    head = ADDGCN(TWO_LEVELS, made_up_context(2000), width=16).eval()
    with torch.no_grad():
        head.transform.bias.fill_(10)
        maps = (torch.randn(1, 7, 3, 3),)
        exact = head(maps).logits
        with torch.autocast("cpu", half):
            given = head(maps).logits
    torch.testing.assert_close(given, exact, rtol=0, atol=0.01 * exact.abs().max().item())


def test_memory_grows_with_the_square_of_the_labels_alone():
    """No tensor of B x C x C x K numbers."""
    head = ADDGCN(TWO_LEVELS, made_up_context(60), width=16)
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
