"""Training steps of the harness beside a plain loop of torch: batches are there, one thread."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mlbench.build import build
from mlbench.contracts.made_up import made_up_context
from mlbench.data.loader import training_order
from mlbench.engine.distributed import World
from mlbench.engine.train import Training, finish, train
from mlbench.types import Index, Optimizer, Places, Schedule, Settings

BATCH, STEPS, LABELS = 4, 6, 20


class Quiet:
    """Shows nothing."""

    def phase(self, text): ...
    def count(self, done, total): ...
    def step(self, epoch, step, steps, loss, speed): ...
    def epoch(self, log): ...


def made(tmp_path, backbone, size, sync_bn):
    """A model, and an epoch of its training."""
    settings = Settings(
        head="gap", backbone=backbone, weights="none", image_size=size, batch_size=BATCH, epochs=1,
        sync_bn=sync_bn,
        optimizer=Optimizer(name="adamw", lr=1e-4), schedule=Schedule(name="constant"),
    )  # fmt: skip
    places = Places(results=tmp_path, cache=tmp_path / "cache")
    torch.manual_seed(0)
    model, loss = build(settings, made_up_context(LABELS, words=300), places)
    images = torch.randint(256, (BATCH * STEPS, 3, size, size), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    names = [str(i) for i in range(len(images))]
    targets = np.random.default_rng(0).integers(0, 2, (len(images), LABELS)).astype(np.int8)
    training = Training(
        settings=settings, index=Index(names, names, targets), loss=loss, seed=0, precision="fp32",
        source=lambda positions, _: images[torch.from_numpy(positions)], world=World(),
        device=torch.device("cpu"), progress=Quiet(),
    )  # fmt: skip
    return model.to(memory_format=torch.channels_last), training


def plain_epoch(model, training):
    """The losses of an epoch of the same batches."""
    chosen, targets = training.settings.optimizer, torch.from_numpy(training.index.targets)
    optimizer = torch.optim.AdamW(model.parameters(), chosen.lr, weight_decay=chosen.weight_decay)
    losses = []
    for positions in training_order(len(targets), BATCH, 0, 0):
        known = targets[torch.from_numpy(positions)].float()
        logits = model(training.source(positions, 0)).logits
        loss = binary_cross_entropy_with_logits(logits, known)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def our_epoch(model, training):
    state = training.start(model)
    finish(train(state, training))
    return state.losses


@pytest.mark.parametrize("sync_bn", [False, True])
def test_epoch(beside, tmp_path, sync_bn):
    """Overhead: what the ratio lacks of 1. On the CPU ``sync_bn`` has batch norms of its own."""
    model, training = made(tmp_path, "mobilenetv2_100", 224, sync_bn)
    twin = copy.deepcopy(model).train()
    beside(
        f"{STEPS} steps of mobilenetv2_100@224, batches of {BATCH}, sync_bn {sync_bn}, "
        "beside a plain loop",
        lambda: plain_epoch(twin, training),
        lambda: our_epoch(model, training),
        goal=0.97,
        seconds=8,
    )
