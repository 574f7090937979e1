"""Inputs and weights by rule: see ``rules`` in parity.json."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

WRITTEN = json.loads(Path(__file__).with_name("parity.json").read_text())
FIXTURES = WRITTEN["fixtures"]


def generator(name, salt=WRITTEN["salt"]):
    return np.random.default_rng(zlib.crc32((salt + name).encode()))


def normal(name, shape, salt=WRITTEN["salt"]):
    return torch.from_numpy(generator(name, salt).standard_normal(shape))


def uniform(name, shape, salt=WRITTEN["salt"]):
    return generator(name, salt).random(shape)


def weight(key, shape, salt=WRITTEN["salt"]):
    """The tensor of a state dict by the rule ``weights``."""
    if not shape or key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.float64)
    values = normal(key, shape, salt)
    if len(shape) > 1:
        return values / np.sqrt(values.numel() / shape[0])
    if key.endswith("running_var"):
        return 1 + (0.1 * values).abs()
    return 1 + 0.1 * values if key.endswith("weight") else 0.1 * values


def ssgrl_shapes(labels, channels, words, joint, out):
    """The tensors of SSGRL's head, by the authors' names."""
    shapes = {f"word_semantic.fc_{i}.weight": (joint, n) for i, n in ((1, channels), (2, words))}
    shapes |= {f"word_semantic.fc_{i}.weight": (n, joint) for i, n in ((3, joint), ("a", 1))}
    shapes |= {"word_semantic.fc_3.bias": (joint,), "word_semantic.fc_a.bias": (1,)}
    for i in (3, 4, 5):
        shapes |= {f"graph_net.fc_eq{i}_w.weight": (channels, 2 * channels)}
        shapes |= {f"graph_net.fc_eq{i}_u.weight": (channels, channels)}
        shapes |= {f"graph_net.fc_eq{i}_{of}.bias": (channels,) for of in "wu"}
    shapes |= {"fc_output.weight": (out, 2 * channels), "fc_output.bias": (out,)}
    return shapes | {"classifiers.weight": (labels, out), "classifiers.bias": (labels,)}


def weights(fixture):
    """The authors' state dict of a fixture."""
    return {key: weight(key, shape) for key, shape in FIXTURES[fixture]["keys"]}
