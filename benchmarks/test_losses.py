"""ASL forward and backward beside the formula of its paper and beside binary cross entropy.

That it is finite in half precision, ``tests/plugins/losses`` checks.
"""

import shutil

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mlbench.contracts.made_up import made_up_context
from mlbench_plugins.losses.asl import ASL

SIZES = ((128, 80), (128, 500), (128, 9605))


def plain_asl(x_BC, y_BC, clip=0.05, eps=1e-8):
    """Eq. 5 and 6 as they stand, focusing weights of 4 and 0 in the gradient's graph."""
    p_BC = x_BC.sigmoid()
    miss_BC = (1 - p_BC + clip).clamp(max=1)
    terms_BC = y_BC * p_BC.clamp(min=eps).log() + (1 - y_BC) * miss_BC.clamp(min=eps).log()
    truth_BC = p_BC * y_BC + miss_BC * (1 - y_BC)
    weight_BC = torch.pow(1 - truth_BC, 0 * y_BC + 4 * (1 - y_BC))
    return -(terms_BC * weight_BC).mean()


def with_gradient(loss, x_BC, y_BC):
    """A call that gives a loss and its gradient."""

    def call():
        value = loss(x_BC, y_BC)
        return value, *torch.autograd.grad(value, x_BC)

    return call


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_asl(beside, size, compiled):
    """Compiled, ours alone: what ``torch.compile`` makes of it; runs do not compile losses."""
    if compiled and not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    torch.manual_seed(0)
    x_BC = (3 * torch.randn(size)).requires_grad_()
    y_BC = (torch.rand(size) < 0.05).to(torch.int8)
    loss = ASL(made_up_context(size[1]), detach_focus=False)
    plain = with_gradient(plain_asl, x_BC, y_BC.float())
    bce = with_gradient(binary_cross_entropy_with_logits, x_BC, y_BC.float())
    calls = max(1, 2**21 // x_BC.numel())
    beside(
        f"ASL forward and backward, {size[0]} x {size[1]}{', compiled' * compiled}",
        lambda: [plain() for _ in range(calls)][-1],
        with_gradient(torch.compile(loss) if compiled else loss, x_BC, y_BC),
        goal=5,
        roof=("BCE (goal 50%)", lambda: [bce() for _ in range(calls)], 1 / calls),
        parts=1 / calls,
        calls=calls,
    )
