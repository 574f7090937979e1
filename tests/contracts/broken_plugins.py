"""Plugins as a beginner writes them, each with one fault.

The line of the fault ends in ``# fault``; the docstring is what its report must say.
"""

import sys

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import dropout

from mlbench.types import Dataset, DatasetCard, HeadOutput, Index, Level


class Head(nn.Module):
    def __init__(self, spec, labels):
        super().__init__()
        self.fc = nn.Linear(spec[-1].channels, len(labels))

    def pool(self, features):
        return features[-1].mean((2, 3))

    def forward(self, features):  # fault HasTooManyLogits
        return HeadOutput(self.fc(self.pool(features)))


class ReturnsATensor(Head):
    """forward returns Tensor, not HeadOutput; write return HeadOutput(logits)"""

    def forward(self, features):  # fault
        return self.fc(self.pool(features))


class ReturnsAList(Head):
    """logits are a list, not a tensor; write torch.stack(logits, dim=1)"""

    def forward(self, features):  # fault
        return HeadOutput(list(super().forward(features).logits.unbind(1)))


class HasTooManyLogits(Head):
    """logits of shape [2, 80] instead of [2, 5] for 2 images and 5 labels"""

    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.fc = nn.Linear(spec[-1].channels, 80)


class MakesNaN(Head):
    """NaN in the logits"""

    def pool(self, features):
        return (super().pool(features) - 10).log()  # fault


class StartsFromNaN(Head):
    """NaN in the weights scale of a new head"""

    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.scale = nn.Parameter(torch.full((len(labels),), torch.nan))  # fault

    def forward(self, features):
        return HeadOutput(self.fc(self.pool(features)) * self.scale)


class SpoilsWeights(Head):
    """NaN in the gradient of the deepest map: one step would spoil the weights"""

    def pool(self, features):
        return (0 * super().pool(features)).sqrt()  # fault


class HasNaNInAnExtraLoss(Head):
    """NaN in the extra loss aux['entropy']"""

    def forward(self, features):
        logits = self.fc(self.pool(features))
        entropy = (logits - 100).log().mean()  # fault
        return HeadOutput(logits, {"entropy": entropy})


class OverwritesWhatBackwardNeeds(Head):
    """writes in place to [2, 5] values that the backward pass of"""

    def forward(self, features):
        logits = self.fc(self.pool(features))
        gate = logits.sigmoid()
        gated = gate * logits
        gate += 1  # fault
        return HeadOutput(gated)


class OverwritesFeatures(Head):
    """writes in place to the features [2, 48, 3, 5], which other heads share"""

    def pool(self, features):
        return features[-1].relu_().mean((2, 3))  # fault


class KeepsATensorOnItsDevice(Head):
    """self.words holds a Tensor that torch does not register, move or save; use register_buffer"""

    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.words = torch.from_numpy(labels.embeddings)  # fault

    def forward(self, features):
        return HeadOutput(self.fc(self.pool(features)) + self.words.mean(1))


class KeepsLayersInAList(Head):
    """self.branches holds a Linear that torch does not register, move or save; use nn.ModuleList"""

    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.branches = [nn.Linear(spec[-1].channels, len(labels)) for _ in "ab"]  # fault

    def forward(self, features):
        return HeadOutput(sum(branch(self.pool(features)) for branch in self.branches))


class ForgetsALayer(Head):
    """no gradient reaches ['extra.weight', 'extra.bias']"""

    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.extra = nn.Linear(3, 3)  # fault


class NeedsAnArgument(Head):
    """missing 1 required positional argument: 'hidden'; mlbench passes spec, labels"""

    def __init__(self, spec, labels, hidden):  # fault
        super().__init__(spec, labels)


class FailsToBeMade(Head):
    """IndexError: tuple index out of range"""

    def __init__(self, spec, labels):
        super().__init__(spec, labels)
        self.width = spec[7].channels  # fault


class FailsInItsHelper(Head):
    """RuntimeError: mm: mat1 and mat2 shapes cannot be multiplied (2x48 and 3x3)"""

    def forward(self, features):
        return HeadOutput(project(self.pool(features)))


def project(x):
    return x @ torch.ones(3, 3)  # fault FailsInItsHelper


class Exits(Head):
    """SystemExit: 3"""

    def forward(self, features):
        sys.exit(3)  # fault


class LooksAtTheBatch(Head):
    """an image's logits depend on the rest of the batch"""

    def forward(self, features):  # fault
        x = self.pool(features)
        return HeadOutput(self.fc(x - x.mean(0)))


class IsRandom(Head):
    """a second call gives other logits in evaluation; be random if self.training alone"""

    def forward(self, features):  # fault
        return HeadOutput(self.fc(dropout(self.pool(features))))


class FixesTheBatch(Head):
    """an exported model would serve batches of 2 only; take their size from x.shape[0]"""

    def pool(self, features):
        batch = len(features[-1])  # fault
        return features[-1].flatten().view(batch, features[-1].shape[1], -1).mean(2)


class BranchesOnValues(Head):
    """runs are planned on the meta device, where tensors have no values"""

    def forward(self, features):
        x = self.pool(features)
        if x.norm() > 1000:  # fault
            x = x / x.norm()
        return HeadOutput(self.fc(x))


class Loss(nn.Module):
    def __init__(self, labels):
        super().__init__()


class LogOfZero(Loss):
    """infinite values in the loss for torch.float32 logits of 40 with target 0"""

    def forward(self, logits, targets):
        chance = logits.float().sigmoid()
        terms = torch.where(targets == 1, chance.log(), (1 - chance).log())  # fault
        return -(terms * (targets >= 0)).sum() / targets.numel()


class OverwritesChances(Loss):
    """writes in place to [2, 3] values that the backward pass of"""

    def forward(self, logits, targets):
        chance = logits.float().sigmoid()
        error = (chance - (targets == 1).float()) ** 2
        chance *= 2  # fault
        return (error * (targets >= 0)).mean()


class ReturnsANumber(Loss):
    """the loss returns float, not a scalar tensor"""

    def forward(self, logits, targets):  # fault
        return bce(logits, targets.float()).item()


class Backbone(nn.Module):
    spec = (Level(4, 8), Level(6, 16))
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, weights="default", image_size=None):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 8, 8), nn.Conv2d(4, 6, 2, 2)

    def stages(self):
        return [[self.one], [self.two]]


class ReturnsOneMap(Backbone):
    """forward returns Tensor, not a tuple of maps"""

    def forward(self, images):  # fault
        return self.two(self.one(images))


class FlattensTooEarly(Backbone):
    """RuntimeError: Invalid channel dimensions"""

    def forward(self, images):
        shallow = self.one(images)
        return shallow, self.two(shallow.flatten(2))  # fault


class Data(Dataset):
    card = DatasetCard(title="t", bibtex="@misc{a}", licence="CC0", home="https://example.org")
    names = ("a", "b")

    def __init__(self, root, cache):
        self.cache = cache

    def index(self, split):
        file = self.cache / f"{split}.png"
        Image.new("RGB", (4, 3)).save(file)
        return Index([file], [split], np.array([[1, 0]], np.int8))


class IndexesNoIndex(Data):
    """train: index returns tuple, not Index; write return Index(files, keys, targets)"""

    def index(self, split):  # fault
        return (), ()


class ReadsNoRoot(Data):
    """TypeError: unsupported operand type(s) for /: 'NoneType' and 'str'"""

    def __init__(self, root, cache):
        self.table = (root / "labels.csv").read_text()  # fault


class HasAListOfNames(Data):
    """names is ['a', 'b'], not a tuple of names"""

    names = ["a", "b"]  # fault
