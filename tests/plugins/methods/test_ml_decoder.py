"""ML-Decoder against its formulas with torch's own attention, and its form on angles."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles, Level
from mlbench_plugins.methods.ml_decoder import MLDecoder
from mlbench_plugins.methods.transformer_head import TransformerHead
from tests.plugins.methods.formulas import assert_follows, macs

SPEC = (Level(5, 16), Level(10, 32))
SMALL = {"embedding_dim": 12, "heads": 3, "feedforward": 14}


def made(labels, **options):
    torch.manual_seed(labels)
    return MLDecoder(SPEC, made_up_context(labels), **SMALL | options)


def maps(images, rows=2, columns=3, **options):
    return (torch.empty(0), torch.randn(images, SPEC[-1].channels, rows, columns, **options))


def decoded(decoder, queries_KE, image_DHW, activation):
    """One image at a time, with nn.MultiheadAttention."""
    block, feedforward = decoder.cross_attention, decoder.feedforward
    reference = nn.MultiheadAttention(12, 3, dtype=torch.float64)
    shapes = {name: p.shape for name, p in reference.named_parameters()}
    assert shapes == {name: p.shape for name, p in block.attention.named_parameters()}
    pixels = activation(image_DHW.flatten(1).T @ decoder.embed.weight.T + decoder.embed.bias)
    t = decoder.norm(queries_KE + queries_KE)
    found, _ = torch.func.functional_call(
        reference, dict(block.attention.named_parameters()), (t, pixels, pixels)
    )
    t = block.norm(t + found)
    hidden = torch.relu(t @ feedforward.linear1.weight.T + feedforward.linear1.bias)
    changed = hidden @ feedforward.linear2.weight.T + feedforward.linear2.bias
    return feedforward.norm(t + changed)


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
