"""Query2Label against its formulas with torch's own layers, and what its head promises."""

import math

import pytest
import torch
from torch import nn

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles, Level
from mlbench_plugins.layers.transformer import sine_position
from mlbench_plugins.methods.query2label import Query2Label
from tests.plugins.methods.formulas import assert_follows, macs

SPEC = (Level(5, 16), Level(12, 32))
SMALL = {"heads": 2, "feedforward": 14}
BOTH = {"keep_first_self_attention": True, "keep_other_self_attention": True}


def made(labels, **options):
    torch.manual_seed(labels)
    return Query2Label(SPEC, made_up_context(labels), **SMALL | options)


def maps(images, rows=2, columns=3, **options):
    return (torch.empty(0), torch.randn(images, SPEC[-1].channels, rows, columns, **options))


def place(channels, rows, columns):
    """The code of one pixel and one channel at a time."""
    half = channels // 2
    code = torch.zeros(rows * columns, channels, dtype=torch.float64)
    for pixel in range(rows * columns):
        for axis, (index, size) in enumerate(
            ((pixel // columns, rows), (pixel % columns, columns))
        ):
            angle = 2 * math.pi * (index + 1) / (size + 1e-6)
            for d in range(half):
                wave = math.sin if d % 2 == 0 else math.cos
                code[pixel, axis * half + d] = wave(angle / 10000 ** (2 * (d // 2) / half))
    return code


def attend(block, x, query, key, value):
    reference = nn.MultiheadAttention(x.shape[-1], block.attention.heads, dtype=torch.float64)
    parameters = dict(block.attention.named_parameters())
    found, _ = torch.func.functional_call(reference, parameters, (query, key, value))
    return block.norm(x + found)


def forward(block, x):
    return block.norm(x + block.linear2(torch.relu(block.linear1(x))))


def by_formula(head, image_DHW):
    """One image, without what images share."""
    x_DHW = head.project(image_DHW[None])[0]
    position = place(*x_DHW.shape)
    x = x_DHW.flatten(1).T
    for layer in head.encoder:
        x = attend(layer.self_attention, x, x + position, x + position, x)
        x = forward(layer.feedforward, x)
    t = torch.zeros_like(head.queries)
    for layer in head.decoder:
        if layer.self_attention is not None:
            placed = t + head.queries
            t = attend(layer.self_attention, t, placed, placed, t)
        t = attend(layer.cross_attention, t, t + head.queries, x + position, x)
        t = forward(layer.feedforward, t)
    t = head.norm(t)
    logits = [
        vector @ weight[:, 0] for vector, weight in zip(t, head.classifier.weight, strict=True)
    ]
    return torch.stack(logits) + head.classifier.bias


def by_formulas(head, x_BDHW):
    return torch.stack([by_formula(head, image) for image in x_BDHW])


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (1, {}),
        (5, {"hidden_dim": 8, "encoder_layers": 2}),
        (5, {"encoder_layers": 0, "decoder_layers": 1}),
        (4, BOTH),
        (4, {"keep_first_self_attention": True, "hidden_dim": 12}),
        (4, {"keep_other_self_attention": True, "decoder_layers": 3}),
    ],
)
def test_forward_and_gradients_are_those_of_the_formulas(labels, options, mode):
    head = made(labels, dropout=0.0, **options).double().train(mode)
    nn.init.normal_(head.classifier.bias)
    assert_follows(head, by_formulas, maps(2, dtype=torch.float64)[1], tolerance=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2)])
def test_the_position_code_fits_any_map(size):
    code = sine_position(16, *size, like=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(code, place(16, *size), rtol=1e-12, atol=1e-12)
    half = sine_position(16, *size, like=torch.zeros(1, dtype=torch.bfloat16))
    torch.testing.assert_close(half, code.bfloat16(), rtol=0, atol=0.01)


@pytest.mark.parametrize("options", [{}, BOTH])
def test_flop_counters_see_the_whole_head_and_shared_queries_cost_once(options):
    labels, images, pixels, width, hidden = 3, 4, 6, 8, 14
    found = macs(made(labels, hidden_dim=width, **options).eval(), *maps(images))
    square = width * width
    encoder = pixels * (4 * square + 2 * pixels * width + 2 * width * hidden)
    query = labels * square
    keys_values = 2 * pixels * square
    cross = keys_values + 2 * labels * pixels * width + labels * square
    own = labels * (4 * square + 2 * labels * width) if options else 0
    feedforward = labels * 2 * width * hidden
    once = own + query
    each = pixels * 12 * width + encoder + cross + feedforward  # the first layer
    each += own + query + cross + feedforward + labels * width
    assert found == once + images * each


def test_dropout_differs_from_image_to_image():
    head = made(4, dropout=0.5, encoder_layers=0, **BOTH).train()
    seen = []
    head.decoder[0].self_attention.register_forward_hook(lambda _, __, output: seen.append(output))
    x = maps(1)[1].expand(3, -1, -1, -1)
    nn.init.normal_(head.decoder[0].self_attention.attention.out_proj.bias)
    head((x,))
    assert seen[0].shape == (3, 4, 12)
    assert (seen[0][0] != seen[0][1]).any()
    assert head.eval()((x,)).logits.unique(dim=0).shape == (1, 4)


def test_cosine_logits_are_angles_to_each_labels_own_weights():
    head = made(4, classifier="cosine").double().eval()
    head.classifier.angles = Angles(10.0)
    nn.init.normal_(head.classifier.bias, std=0.1)
    vectors = []
    head.norm.register_forward_hook(lambda _, __, output: vectors.append(output))
    logits = head(maps(2, dtype=torch.float64)).logits
    weight = head.classifier.weight[:, :, 0]
    cosines = nn.functional.cosine_similarity(vectors[0], weight[None], dim=-1)
    torch.testing.assert_close(logits, 10 * (cosines + head.classifier.bias))
