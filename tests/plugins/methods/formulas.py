"""What several methods' tests share: formulas in loops, gradients and the largest tensor made."""

import torch
from torch import nn
from torch.nn.functional import elu, leaky_relu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlbench.engine.cost import count


def assert_same(fast, slow, inputs, other_inputs=None, tolerance=1e-12):
    """Values of a fast and a plain form agree, and so do the gradients of their inputs."""
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    weights = torch.randn_like(fast)
    for pair in zip(
        torch.autograd.grad((weights * fast).sum(), inputs, materialize_grads=True),
        torch.autograd.grad((weights * slow).sum(), other_inputs or inputs, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(*pair, rtol=10 * tolerance, atol=tolerance)


def assert_follows(head, by_loops, x_BDHW, tolerance=1e-12):
    """A head's logits are those of its formulas, and so are the gradients of map and weights."""
    one = x_BDHW.clone().requires_grad_()
    two = x_BDHW.clone().requires_grad_()
    trained = [p for p in head.parameters() if p.requires_grad]
    fast, slow = head((one,)).logits, by_loops(head, two)
    assert_same(fast, slow, [one, *trained], [two, *trained], tolerance)


def pixels(image_DHW):
    return list(image_DHW.flatten(1).T)


def attend(layer, nodes, edges):
    """Graph attention, one node and one neighbour at a time; no neighbours are all alike."""
    h = nodes @ layer.W
    rows = []
    for i in range(len(h)):
        near = [j for j in range(len(h)) if edges[i, j]]
        scores = [leaky_relu(torch.cat((h[i], h[j])) @ layer.a[:, 0], 0.2) for j in near]
        weights = (
            torch.stack(scores).softmax(0)
            if near
            else torch.full((len(h),), 1 / len(h), dtype=h.dtype)
        )
        found = sum(w * h[j] for w, j in zip(weights, near or range(len(h)), strict=True))
        rows.append(elu(found + h[i] if layer.residual else found))
    return torch.stack(rows)


def torchs_attention(block, x, query, key, value):
    """Attention by torch's own layer, with its residual and norm."""
    reference = nn.MultiheadAttention(x.shape[-1], block.attention.heads, dtype=torch.float64)
    parameters = dict(block.attention.named_parameters())
    inputs = (query, key, value)
    found, _ = torch.func.functional_call(reference, parameters, inputs, strict=True)
    return block.norm(x + found)


def feed_forward(block, x):
    return block.norm(x + block.linear2(torch.relu(block.linear1(x))))


def macs(head, *maps):
    """Multiply-accumulates of a forward pass, all of which a flop counter sees."""
    return count(head, lambda: head(maps), maps, "head")


class LargestTensor(TorchDispatchMode):
    """Records the most elements of any tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            # A view with a stride of 0 takes no memory.
            if isinstance(leaf, torch.Tensor) and 0 not in leaf.stride():
                self.elements = max(self.elements, leaf.numel())
        return result


def largest(compute):
    """Elements of the largest tensor in a forward and a backward pass."""
    with LargestTensor() as mode:
        compute().sum().backward()
    return mode.elements
