"""Heads and their layers beside plain forms of their papers' equations.

Maps of 14 x 14 with 2048 channels (MSRN: 28, 14 and 7 with 512, 1024 and 2048), on one thread.
Both members of a pair give the same numbers.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, layer_norm, multi_head_attention_forward, normalize

from mlbench import registry
from mlbench.contracts.made_up import made_up_context
from mlbench.engine.cost import count
from mlbench.types import Level
from mlbench_plugins.layers.classifiers import ElementwiseClassifier
from mlbench_plugins.layers.decoupling import SemanticDecoupling
from mlbench_plugins.layers.label_groups import LabelNodes
from mlbench_plugins.layers.transformer import sine_position

from conftest import elementwise, gemm  # isort: skip

LABELS, SIDE = 80, 14
OPTIONS = {"ssgrl": {"downsample": 1}, "msrn": {"downsample": 1}, "csra": {"heads": 4}}


# ------------------------------------------------------------------------------------- plain forms
def plain_decoupling(layer, x_BDHW, words_CK):
    """SSGRL, eq. 1 to 5, with all B x N x C x K tanh values at once and two linear layers."""
    x_BND = x_BDHW.flatten(2).transpose(1, 2)
    joint_BNCK = torch.tanh(layer.visual(x_BND)[:, :, None] * words_CK)
    alpha_BNC = layer.score(layer.mix(joint_BNCK)).squeeze(-1).softmax(dim=1)
    return (alpha_BNC[..., None] * x_BND[:, :, None]).sum(dim=1)


def plain_attention(x_BDHW, labels_CD):
    """MSRN's attention, with all B x N x C x D weights at once."""
    x_BN1D = x_BDHW.flatten(2).transpose(1, 2)[:, :, None]
    return ((x_BN1D * labels_CD).softmax(dim=1) * x_BN1D).sum(dim=1)


def ssgrl(head, maps):
    """Eq. 1 to 8; the graph network is the same in both."""
    x_BDHW = avg_pool2d(maps[-1], head.downsample, ceil_mode=head.ceil_mode)
    words_CK = head.words.project(head.words.vectors)
    x_BCD = plain_decoupling(head.decoupling, x_BDHW, words_CK)
    h_BCD = head.ggnn(head.project(x_BCD), head.adjacency)
    o_BCD = torch.tanh(head.output(torch.cat((h_BCD, x_BCD), dim=-1)))
    return (o_BCD * head.classifier.weight).sum(dim=-1) + head.classifier.bias


def msrn(head, maps):
    """Label branch, attention on three maps, and the classifier on all vectors."""
    shapes = head.branch.shapes
    parts = head.branch.compute().split([a * b for a, b in shapes])
    nodes = LabelNodes(*(x.view(shape) for x, shape in zip(parts, shapes, strict=True)))
    nodes_RD = torch.cat((nodes.labels, nodes.groups))
    found = [plain_attention(p_BDHW, nodes_RD) for p_BDHW in head.project_maps(maps)]
    v_BRD = torch.tanh(torch.cat(found, dim=-1))
    if isinstance(head.classifier, ElementwiseClassifier):
        v_BCD, v_BGD = v_BRD.split((len(nodes.labels), len(nodes.groups)), dim=1)
        v_BRD = torch.cat((v_BCD, nodes.of_groups(v_BGD)), dim=-1)
    return head.classifier(v_BRD)


def ml_gcn(head, maps):
    """Eq. 2 to 4: classifiers made for every batch, maximum over positions."""
    return maps[-1].amax(dim=(2, 3)) @ head.class_weights.compute().T


def csra(head, maps):
    """Section 3: every head its scores, its average and its attention."""
    logits_BC = 0
    for weight_CD, T in zip(head.weight, head.temperatures, strict=True):
        s_BCN = normalize(weight_CD, dim=-1) @ maps[-1].flatten(2)
        pooled_BC = s_BCN.amax(-1) if torch.inf == T else ((T * s_BCN).softmax(-1) * s_BCN).sum(-1)
        logits_BC = logits_BC + s_BCN.mean(-1) + head.lam * pooled_BC
    return logits_BC


def add_gcn(head, maps):
    """Section 3.2: a static graph, a dynamic one of every node beside the context."""
    x_BND = maps[-1].flatten(2).transpose(1, 2)
    s_BNC = head.scores(x_BND)
    v_BCK = s_BNC.sigmoid().transpose(1, 2) @ head.transform(x_BND)
    act = nn.LeakyReLU(0.2)
    static_BKC = act(head.static_adjacency(v_BCK.transpose(1, 2)))
    r_BCK = v_BCK + act(head.static_weight(static_BKC.transpose(1, 2)))
    context_B1K = act(head.context_norm(head.context(r_BCK.mean(1))))[:, None]
    both_BCK = torch.cat((context_B1K.expand_as(r_BCK), r_BCK), -1)
    edges_BCC = head.dynamic_adjacency(both_BCK).sigmoid()
    z_BCK = v_BCK + act(head.dynamic_weight(act(edges_BCC @ r_BCK)))
    graph_BC = (z_BCK * head.classifier.weight).sum(-1) + head.classifier.bias
    return (s_BNC.amax(1) + graph_BC) / 2


def torch_attention(block, x_BKD, query, key, value):
    """A block by torch's own multi-head attention, which takes batches second."""
    layer, turned = block.attention, [x.transpose(0, 1) for x in (query, key, value)]
    found = multi_head_attention_forward(
        *turned, x_BKD.shape[-1], layer.heads, layer.in_proj_weight, layer.in_proj_bias, None,
        None, False, 0.0, layer.out_proj.weight, layer.out_proj.bias, need_weights=False,
    )[0]  # fmt: skip
    return block.norm(x_BKD + found.transpose(0, 1))


def query2label(head, maps):
    """Section 3.2: encoder, decoder of label queries, one classifier a label."""
    x_BDHW = head.project(maps[-1])
    x_BND = x_BDHW.flatten(2).transpose(1, 2)
    code_ND = sine_position(*x_BDHW.shape[1:], like=x_BND)
    for layer in head.encoder:
        placed = x_BND + code_ND
        x_BND = layer.feedforward(
            torch_attention(layer.self_attention, x_BND, placed, placed, x_BND)
        )
    t_BCD = head.queries.new_zeros(len(x_BND), *head.queries.shape)
    for layer in head.decoder:
        asked = t_BCD + head.queries, x_BND + code_ND, x_BND
        t_BCD = layer.feedforward(torch_attention(layer.cross_attention, t_BCD, *asked))
    return (head.norm(t_BCD) * head.classifier.weight[..., 0]).sum(-1) + head.classifier.bias


def ml_decoder(head, maps):
    """Section 2: queries attend to the embedded map; groups are classified one by one."""
    parts = head.decoder
    x_BNE = parts.embed(maps[-1].flatten(2).transpose(1, 2)).relu()
    q_BKE = head.queries.expand(len(x_BNE), -1, -1)
    q_BKE = layer_norm(q_BKE + q_BKE, q_BKE.shape[-1:], parts.norm.weight, parts.norm.bias)
    h_BKE = parts.feedforward(torch_attention(parts.cross_attention, q_BKE, q_BKE, x_BNE, x_BNE))
    logits = [h_BKE[:, k] @ weight for k, weight in enumerate(head.classifier.weight)]
    return torch.cat(logits, -1)[:, : head.classifier.labels] + head.classifier.bias


PLAIN = {
    form.__name__: form for form in (ssgrl, msrn, ml_gcn, csra, add_gcn, query2label, ml_decoder)
}


# ---------------------------------------------------------------------------------------- the rows
def call_of(function, tensors=None):
    """A call of a function: its result, and the gradients of tensors if there are any."""

    def call():
        with torch.set_grad_enabled(tensors is not None):
            found = function()
            return found if tensors is None else (found, *torch.autograd.grad(found.sum(), tensors))

    return call


def made(name, labels, batch, side=SIDE):
    """A head, maps for it, and a roof that its forward pass has."""
    torch.manual_seed(0)
    spec = Level(512, 8), Level(1024, 16), Level(2048, 32)
    given = spec, made_up_context(labels, words=300)
    head = registry.make("head", name, given, OPTIONS.get(name, {})).eval()
    sides = (2 * side, side, side // 2) if name == "msrn" else (side,) * 3
    maps = tuple(torch.rand(batch, v.channels, s, s) for v, s in zip(spec, sides, strict=True))
    if name == "msrn":
        pixels = sum(s**2 for s in sides)
        return head, maps, elementwise(torch.exp, batch * pixels * (labels + 4) * 512)
    twin = copy.deepcopy(head)
    return head, maps, gemm(2 * count(twin, lambda: twin(maps), maps, name))


@pytest.mark.parametrize(
    ("plain", "goal", "memory"),
    [(ssgrl, 4, 40), (msrn, 3, 25), (query2label, 1, None), (ml_decoder, 1, None),
     (csra, 1, None), (add_gcn, 1, None)],
)  # fmt: skip
def test_heads_in_evaluation(beside, batch, plain, goal, memory):
    slow = plain in (ssgrl, msrn, query2label)
    evaluation(beside, plain, LABELS, batch if slow else 4, goal, memory)


def test_ssgrl_of_many_labels(beside):
    """Memory does not grow with the labels."""
    evaluation(beside, ssgrl, 500, 1, 5, 20)


def test_ml_gcn_of_pooled_maps(beside):
    """Its maximum over positions, the same in both, would be all of the time."""
    evaluation(beside, ml_gcn, LABELS, 4, 50, None, side=1, calls=16)


def evaluation(beside, plain, labels, batch, goal, memory, side=SIDE, calls=1):
    name = plain.__name__
    head, maps, roof = made(name, labels, batch, side)
    what = f"{name} forward, {labels} labels, batch of {batch}"
    first, second = call_of(lambda: plain(head, maps)), call_of(lambda: head(maps).logits)

    def often():
        return [first() for _ in range(calls)][-1]

    how = {"goal": goal, "roof": roof, "memory": memory}
    beside(what, often, second, **how, parts=1 / calls, calls=calls)


@pytest.mark.parametrize(("plain", "goal", "memory"), [(ssgrl, 3, 6), (msrn, 4, None)])
def test_heads_in_training(beside, batch, plain, goal, memory):
    """Of the memory, the gradients of parameters are the same in both: 6x is for batches of 4."""
    name = plain.__name__
    head, maps, _ = made(name, LABELS, batch)
    trained = list(head.train().parameters())
    ours = call_of(lambda: head(maps).logits, trained)
    plain_call = call_of(lambda: plain(head, maps), trained)
    what = f"{name} forward and backward, {LABELS} labels, batch of {batch}"
    beside(what, plain_call, ours, goal=goal, memory=memory)


@pytest.mark.parametrize(("backward", "goal"), [(False, 25), (True, 20)])
def test_semantic_decoupling(beside, batch, backward, goal):
    torch.manual_seed(0)
    layer = SemanticDecoupling(channels=2048, joint=1024)
    words = torch.randn(LABELS, 1024)
    x = torch.randn(batch, 2048, SIDE, SIDE, requires_grad=backward)
    beside(
        f"decoupling forward{' and backward' * backward}, {LABELS} labels, batch of {batch}",
        call_of(lambda: plain_decoupling(layer, x, words), [x] if backward else None),
        call_of(lambda: layer(x, words), [x] if backward else None),
        goal=goal,
        roof=elementwise(torch.tanh, (1 + backward) * batch * LABELS * SIDE**2 * 1024),
    )
