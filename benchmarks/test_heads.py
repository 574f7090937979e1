"""Time the optimized layers of SSGRL and MSRN against direct implementations of their formulas.

Run on an idle machine: ``pytest -n 0 benchmarks/test_heads.py --benchmark-group-by=group``.
Both members of a group compute the same numbers; compare their ratio.
"""

import pytest
import torch

from mlbench_plugins.layers.channel_attention import channel_attention
from mlbench_plugins.layers.decoupling import SemanticDecoupling

BATCH, LABELS, SIDE = 4, 80, 14


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


@pytest.fixture(params=["forward", "forward and backward"])
def timed(request, benchmark):
    """Time a function of leaf tensors, with or without its backward pass."""
    benchmark.group = f"{request.node.name.split('[')[0]}: {request.param}"

    def time(function, *tensors):
        backward = request.param != "forward"
        tensors = [t.requires_grad_(backward) for t in tensors]

        def once():
            with torch.set_grad_enabled(backward):
                result = function(*tensors)
                return result.sum().backward() if backward else result

        benchmark.pedantic(once, rounds=3, warmup_rounds=1)

    return time


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_semantic_decoupling(timed, form):
    torch.manual_seed(0)
    layer = SemanticDecoupling(channels=2048, joint=1024)
    words = torch.randn(LABELS, 1024)
    fast = form == "fast"
    timed(
        lambda x: layer(x, words) if fast else plain_decoupling(layer, x, words),
        torch.randn(BATCH, 2048, SIDE, SIDE),
    )


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_channel_attention(timed, form):
    torch.manual_seed(0)
    timed(
        channel_attention if form == "fast" else plain_attention,
        torch.randn(BATCH, 512, SIDE, SIDE),
        torch.randn(LABELS + 4, 512),
    )


def test_plain_and_fast_agree():
    torch.manual_seed(0)
    layer = SemanticDecoupling(channels=16, joint=8)
    x, words = torch.randn(2, 16, 5, 6), torch.randn(3, 8)
    torch.testing.assert_close(layer(x, words), plain_decoupling(layer, x, words))
    labels = torch.randn(3, 16)
    torch.testing.assert_close(channel_attention(x, labels), plain_attention(x, labels))
