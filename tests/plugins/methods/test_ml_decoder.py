"""ML-Decoder, its form on angles and Query2Label against formulas with torch's own attention."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles, Level
from mlbench_plugins.layers.transformer import sine_position
from mlbench_plugins.methods.ml_decoder import MLDecoder
from mlbench_plugins.methods.query2label import Query2Label
from mlbench_plugins.methods.transformer_head import TransformerHead
from tests.plugins.methods.formulas import assert_follows, feed_forward, macs, torchs_attention

SPEC = (Level(5, 16), Level(10, 32))
SMALL = {"embedding_dim": 12, "heads": 3, "feedforward": 14}


def made(labels, **options):
    torch.manual_seed(labels)
    return MLDecoder(SPEC, made_up_context(labels), **SMALL | options)


def maps(images, rows=2, columns=3, **options):
    return (torch.empty(0), torch.randn(images, SPEC[-1].channels, rows, columns, **options))


def decoded(decoder, queries_KE, image_DHW, activation):
    """One image at a time, with nn.MultiheadAttention."""
    assert decoder.cross_attention.attention.heads == SMALL["heads"]
    pixels = activation(image_DHW.flatten(1).T @ decoder.embed.weight.T + decoder.embed.bias)
    t = decoder.norm(queries_KE + queries_KE)
    t = torchs_attention(decoder.cross_attention, t, t, pixels, pixels)
    return feed_forward(decoder.feedforward, t)


def by_loops(head, x_BDHW):
    """Label c is entry c mod g of group c div g, where g = ceil(C / K)."""
    labels, groups = len(head.classifier.bias), len(head.queries)
    size = -(-labels // groups)
    rows = []
    for image in x_BDHW:
        h = decoded(head.decoder, head.queries, image, torch.relu)
        weight = head.classifier.weight
        rows.append([h[c // size] @ weight[c // size, :, c % size] for c in range(labels)])
    return torch.stack([torch.stack(row) for row in rows]) + head.classifier.bias


@pytest.mark.parametrize(
    ("labels", "groups", "made_queries"),
    [(1, -1, 1), (7, -1, 7), (7, 20, 7), (7, 3, 3), (7, 1, 1), (9, 7, 7), (205, -1, 100)],
)
def test_forward_and_gradients_are_those_of_the_formulas(labels, groups, made_queries):
    head = made(labels, groups=groups, dropout=0.0).double()
    nn.init.normal_(head.classifier.bias)
    assert len(head.queries) == made_queries
    assert_follows(head, by_loops, maps(2, dtype=torch.float64)[1], tolerance=1e-10)


def test_flop_counters_see_the_whole_head_and_queries_are_projected_once_a_call():
    head, images, pixels = made(7, groups=3).eval(), 4, 6
    found = macs(head, *maps(images))
    channels, width, hidden, groups, size = 10, 12, 14, 3, 3
    embed = pixels * channels * width
    keys_and_values = 2 * pixels * width * width
    attention = 2 * groups * pixels * width + groups * width * width
    classify = 2 * groups * width * hidden + groups * width * size
    once = groups * width * width
    assert found == once + images * (embed + keys_and_values + attention + classify)


def test_queries_that_serve_no_label_cost_nothing():
    """120 labels in 100 groups are 60 pairs."""
    assert len({macs(made(120, groups=groups).eval(), *maps(1)) for groups in (100, 60)}) == 1


def test_the_queries_are_saved_but_never_trained():
    head = made(4)
    assert "queries" in head.state_dict()
    assert "queries" not in dict(head.named_parameters())


def test_dropout_differs_from_image_to_image_from_the_first_step_on():
    head = made(4, dropout=0.5)
    first = []
    head.decoder.norm.register_forward_hook(lambda _, __, output: first.append(output))
    x = maps(1)[1].expand(3, -1, -1, -1)
    logits = head.train()((x,)).logits
    assert first[0].shape == (3, 4, 12)
    assert (first[0][0] != first[0][1]).any()
    assert (logits[0] != logits[1]).any()
    head.eval()((x,))
    assert first[1].shape == (1, 4, 12)


def test_dropout_reaches_the_attention_weights_in_training_alone():
    attention = made(4, dropout=0.5).decoder.cross_attention.attention
    queries, pixels = torch.randn(1, 4, 12), torch.randn(2, 6, 12)
    one, two = (attention.train()(queries, pixels, pixels) for _ in range(2))
    assert (one != two).any()
    one, two = (attention.eval()(queries, pixels, pixels) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize("labels", [1, 6])
def test_the_zero_shot_form_is_that_of_the_formulas(labels):
    head = made(labels, queries="words").double().eval()
    x = maps(2, dtype=torch.float64)
    queries = torch.relu(head.words @ head.word.weight.T + head.word.bias)
    vectors = torch.stack([decoded(head.decoder, queries, image, torch.relu) for image in x[1]])
    expected = vectors @ head.classifier.weight[0] + head.classifier.bias
    torch.testing.assert_close(head(x).logits, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_other_labels_can_be_put_in_the_zero_shot_form(classifier):
    head, x = made(6, queries="words", classifier=classifier).eval(), maps(2)
    before, words = head(x).logits, head.words
    head.words = torch.cat((words[[4, 1]], torch.randn(1, words.shape[1])))
    after = head(x).logits
    torch.testing.assert_close(after[:, :2], before[:, [4, 1]])
    assert after.shape == (2, 3)
    assert (after[:, 2:] - before).abs().min() > 1e-4
    assert not any(6 in p.shape for p in head.parameters())


def on_angles(labels, **options):
    torch.manual_seed(labels)
    head = TransformerHead(SPEC, made_up_context(labels), **SMALL | options).double().eval()
    torch.nn.init.normal_(head.classifier.bias)
    return head


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


@pytest.mark.parametrize("angles", [Angles(), Angles(17.0), Angles(10.0, 2.0)])
@pytest.mark.parametrize(("labels", "groups"), [(1, -1), (5, -1), (7, 3)])
def test_logits_are_scaled_cosines_with_the_bias_added_before_the_scale(labels, groups, angles):
    head, x = on_angles(labels, groups=groups), maps(2, dtype=torch.float64)
    torch.nn.init.uniform_(head.classifier.bias, -0.01, 0.01)
    head.classifier.angles = angles
    size = head.classifier.weight.shape[-1]
    for image, logits in zip(x[1], head(x).logits, strict=True):
        h = decoded(head.decoder, head.queries, image, leaky)
        for c in range(labels):
            vector, weight = h[c // size], head.classifier.weight[c // size, :, c % size]
            cosine = (vector / vector.norm()) @ (weight / weight.norm())
            z = cosine + head.classifier.bias[c]
            expected = angles.scale * (2 * ((z + 1) / 2) ** angles.exponent - 1)
            torch.testing.assert_close(logits[c], expected, rtol=1e-10, atol=1e-10)


def test_the_linear_form_is_ml_decoder():
    head, plain, x = on_angles(7, groups=3, classifier="linear"), made(7, groups=3), maps(2)
    plain.load_state_dict(head.state_dict())
    assert torch.equal(head.float()(x).logits, plain.eval()(x).logits)


def test_cosines_stay_in_float32_under_autocast():
    head, x = on_angles(4).float(), maps(2)
    exact = head(x).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(x).logits
        vectors = torch.randn(2, 4, 12)
        classified = head.classifier(vectors)
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()
    torch.testing.assert_close(classified, head.classifier(vectors), rtol=0, atol=0)


def test_pixels_below_zero_count():
    """A ReLU would let no gradient through where every embedding is negative."""
    for classifier, reached in (("cosine", True), ("linear", False)):
        head = on_angles(3, classifier=classifier)
        torch.nn.init.constant_(head.decoder.embed.bias, -100.0)
        x = maps(1, dtype=torch.float64)[1].requires_grad_()
        functional.mse_loss(head((x,)).logits, torch.ones(1, 3, dtype=x.dtype)).backward()
        assert bool(x.grad.any()) is reached


Q2L_SPEC = (Level(5, 16), Level(12, 32))
Q2L_SMALL = {"heads": 2, "feedforward": 14}
BOTH = {"keep_first_self_attention": True, "keep_other_self_attention": True}


def query2label(labels, **options):
    torch.manual_seed(labels)
    return Query2Label(Q2L_SPEC, made_up_context(labels), **Q2L_SMALL | options)


def q2l_maps(images, rows=2, columns=3, **options):
    return (torch.empty(0), torch.randn(images, Q2L_SPEC[-1].channels, rows, columns, **options))


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


def by_formula(head, image_DHW):
    """One image, without what images share."""
    x_DHW = head.project(image_DHW[None])[0]
    position = place(*x_DHW.shape)
    x = x_DHW.flatten(1).T
    for layer in head.encoder:
        x = torchs_attention(layer.self_attention, x, x + position, x + position, x)
        x = feed_forward(layer.feedforward, x)
    t = torch.zeros_like(head.queries)
    for layer in head.decoder:
        if layer.self_attention is not None:
            placed = t + head.queries
            t = torchs_attention(layer.self_attention, t, placed, placed, t)
        t = torchs_attention(layer.cross_attention, t, t + head.queries, x + position, x)
        t = feed_forward(layer.feedforward, t)
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
def test_what_query2label_computes_is_that_of_its_formulas(labels, options, mode):
    head = query2label(labels, dropout=0.0, **options).double().train(mode)
    nn.init.normal_(head.classifier.bias)
    assert_follows(head, by_formulas, q2l_maps(2, dtype=torch.float64)[1], tolerance=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2)])
def test_the_position_code_fits_any_map(size):
    code = sine_position(16, *size, like=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(code, place(16, *size), rtol=1e-12, atol=1e-12)
    half = sine_position(16, *size, like=torch.zeros(1, dtype=torch.bfloat16))
    torch.testing.assert_close(half, code.bfloat16(), rtol=0, atol=0.01)


@pytest.mark.parametrize("options", [{}, BOTH])
def test_flop_counters_see_the_whole_head_and_shared_queries_cost_once(options):
    labels, images, pixels, width, hidden = 3, 4, 6, 8, 14
    found = macs(query2label(labels, hidden_dim=width, **options).eval(), *q2l_maps(images))
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
    head = query2label(4, dropout=0.5, encoder_layers=0, **BOTH).train()
    seen = []
    head.decoder[0].self_attention.register_forward_hook(lambda _, __, output: seen.append(output))
    x = q2l_maps(1)[1].expand(3, -1, -1, -1)
    nn.init.normal_(head.decoder[0].self_attention.attention.out_proj.bias)
    head((x,))
    assert seen[0].shape == (3, 4, 12)
    assert (seen[0][0] != seen[0][1]).any()
    assert head.eval()((x,)).logits.unique(dim=0).shape == (1, 4)


def test_cosine_logits_are_angles_to_each_labels_own_weights():
    head = query2label(4, classifier="cosine").double().eval()
    head.classifier.angles = Angles(10.0)
    nn.init.normal_(head.classifier.bias, std=0.1)
    vectors = []
    head.norm.register_forward_hook(lambda _, __, output: vectors.append(output))
    logits = head(q2l_maps(2, dtype=torch.float64)).logits
    weight = head.classifier.weight[:, :, 0]
    cosines = nn.functional.cosine_similarity(vectors[0], weight[None], dim=-1)
    torch.testing.assert_close(logits, 10 * (cosines + head.classifier.bias))
