"""ML-Decoder on angles: where it differs from ML-Decoder."""

import pytest
import torch
from torch.nn import functional

from mlbench.contracts.made_up import made_up_context
from mlbench.types import Angles
from mlbench_plugins.methods.transformer_head import TransformerHead
from tests.plugins.methods.test_ml_decoder import SMALL, SPEC, decoded, maps
from tests.plugins.methods.test_ml_decoder import made as of_ml_decoder


def made(labels, **options):
    torch.manual_seed(labels)
    head = TransformerHead(SPEC, made_up_context(labels), **SMALL | options).double().eval()
    torch.nn.init.normal_(head.classifier.bias)
    return head


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


@pytest.mark.parametrize("angles", [Angles(), Angles(17.0), Angles(10.0, 2.0)])
@pytest.mark.parametrize(("labels", "groups"), [(1, -1), (5, -1), (7, 3)])
def test_logits_are_scaled_cosines_with_the_bias_added_before_the_scale(labels, groups, angles):
    head, x = made(labels, groups=groups), maps(2, dtype=torch.float64)
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
    head, plain, x = made(7, groups=3, classifier="linear"), of_ml_decoder(7, groups=3), maps(2)
    plain.load_state_dict(head.state_dict())
    assert torch.equal(head.float()(x).logits, plain.eval()(x).logits)


def test_cosines_stay_in_float32_under_autocast():
    head, x = made(4).float(), maps(2)
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
        head = made(3, classifier=classifier)
        torch.nn.init.constant_(head.decoder.embed.bias, -100.0)
        x = maps(1, dtype=torch.float64)[1].requires_grad_()
        functional.mse_loss(head((x,)).logits, torch.ones(1, 3, dtype=x.dtype)).backward()
        assert bool(x.grad.any()) is reached
