"""A model, data and a training run small enough to follow by hand."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from mlbench.engine.distributed import World
from mlbench.engine.model import MultiLabelModel
from mlbench.engine.train import Training, finish, train
from mlbench.types import HeadOutput, Index, Level, Settings


class Backbone(nn.Module):
    """Two convolutions with a batch norm each."""

    spec = (Level(4, 2), Level(6, 4))
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())

    def stages(self):
        return [[self.one], [self.two]]

    def forward(self, images):
        one = self.one(images)
        return one, self.two(one)


class Head(nn.Module):
    """Pool and classify, with an extra loss."""

    def __init__(self, labels=3):
        super().__init__()
        self.classifier = nn.Linear(6, labels)

    def forward(self, features):
        logits = self.classifier(features[-1].mean((2, 3)))
        return HeadOutput(logits, {"small": 1e-3 * self.classifier.weight.square().sum()})


class Bce(nn.Module):
    """Mean over images and labels."""

    def forward(self, logits, targets):
        return nn.functional.binary_cross_entropy_with_logits(logits, targets.float())


class Pixels:
    """Images from memory."""

    def __init__(self, images):
        self.images = images

    def __call__(self, positions, epoch):
        return self.images[torch.from_numpy(positions)]


class Quiet:
    """Nobody wants to know."""

    def phase(self, text): ...
    def count(self, done, total): ...
    def step(self, epoch, step, steps, loss, speed): ...
    def epoch(self, log): ...


def index(images=24, labels=3):
    targets = (np.random.default_rng(1).random((images, labels)) < 0.4).astype(np.int8)
    keys = [str(i) for i in range(images)]
    return Index(keys, keys, targets)


def settings(**changes):
    fields = {
        "head": "gap",
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
        "schedule": {"name": "constant"},
    }
    return Settings.model_validate(fields | changes)


def model(seed=0, head=Head, backbone=Backbone):
    torch.manual_seed(seed)
    return MultiLabelModel(backbone(), head(), Backbone.mean, Backbone.std)


def training(given=None, **changes):
    data = index()
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (len(data), 3, 16, 16), dtype=torch.uint8, generator=generator)
    made = Training(
        settings=given or settings(),
        index=data,
        source=Pixels(images),
        loss=Bce(),
        seed=0,
        precision="fp32",
        device=torch.device("cpu"),
        world=World(),
        progress=Quiet(),
    )
    return replace(made, **changes)


def fit(training, *models):
    """Train one model or several; returns the state."""
    state = training.start(*(models or (model(),)))
    finish(train(state, training))
    return state


def flat(network):
    """All parameters in one vector."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])
