"""Heads and losses on fake tensors of a GPU, which need none and have no numbers to wait for."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from mlbench import registry
from mlbench.contracts.made_up import PYRAMID, features, made_up_context, targets
from mlbench.types import LossContext, evaluate_loss

PARTS = [(p.kind, p.name) for kind in ("head", "loss") for p in registry.plugins(kind)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_everything_stays_on_the_device_of_the_inputs(kind, name):
    given = [PYRAMID] * (kind == "head") + [made_up_context(5)]
    made, maps, labels = registry.make(kind, name, given, {}), features(PYRAMID), targets(2, 5)
    part = torch.nn.ModuleList([made] * isinstance(made, torch.nn.Module))
    with FakeTensorMode():
        cuda = lambda x: x if x is None else torch.empty(x.shape, dtype=x.dtype, device="cuda")  # noqa: E731
        for tensors in [kept for m in part.modules() for kept in (m._parameters, m._buffers)]:
            tensors |= {key: cuda(x) for key, x in tensors.items()}
        for training in (True, False):
            part.train(training)
            if kind == "head":
                found = made([*map(cuda, maps)]).logits
            else:
                found = evaluate_loss(made, cuda(labels).float(), cuda(labels), LossContext(2, 2))
            assert found.is_cuda
