"""Imported heads on maps of odd size: the published pooling drops the last row and column."""

import numpy as np
import pytest
import torch

from mlbench import registry
from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.methods import msrn, ssgrl
from mlbench_tools.weights.conversion import convert, fill
from mlbench_tools.weights.importing import released_settings
from tests.parity import loops
from tests.parity.fixtures import normal, ssgrl_shapes, uniform, weight

LABELS, WORDS = 5, 7
SIZES = [(5, 5), (3, 4), (4, 7), (4, 4)]
"""Of the deepest map; 5 is that of 160 pixels."""


def imported(method, released, state, channels):
    """The head of an imported file, on levels of these channels, with the file's own options."""
    converted = convert(released, state, method)
    settings = released_settings(method, "", released, {"head_options": converted.options})
    spec = tuple(Level(c, 32) for c in channels)
    words = normal("words", (LABELS, WORDS)).numpy()
    counts = np.round(50 * uniform("counts", (LABELS, LABELS))) + 60 * np.eye(LABELS)
    factory = registry.find("head", method).load()
    head = factory(spec, known_context(counts, words), **settings.head_options).double()
    (name,) = released.needs["words"]
    head.load_state_dict({**head.state_dict(), name: torch.from_numpy(words)})
    fill(head, converted.head, method, released)
    return head.eval()


def made(shapes):
    return {key: weight(key, shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("size", SIZES)
def test_ssgrl(size):
    channels = 6
    state = made(ssgrl_shapes(LABELS, channels, WORDS, joint=4, out=8))
    head = imported("ssgrl", ssgrl.RELEASED, state, [channels])
    x = normal("x", (2, channels, *size))
    w = {key: value.numpy() for key, value in state.items()}
    pooled = np.stack([loops.halved(image, np.mean) for image in x.numpy()])
    expected = loops.ssgrl(w, pooled, head.words.vectors.numpy(), head.adjacency.numpy(), 3, False)
    agree("ssgrl", head, (x,), expected, size)


@pytest.mark.parametrize("size", SIZES)
def test_msrn(size):
    channels, width, groups = (4, 6, 8), 9, 2
    layers = {"label_embed.layers.0": (256, 300), "label_embed.layers.1": (300, width)}
    layers |= {"group_embed.layers.0.embed": (width, width)}
    layers |= {"group_embed.layers.0.assign_mat": (width, groups)}
    linear = {"fc_label": (256, WORDS), "fc1": (2048, 3 * width * (LABELS + groups))}
    linear |= {"fc2": (LABELS, 2048)}
    linear |= {f"ProjectM.{i}": (width, c, 1, 1) for i, c in enumerate(channels)}
    linear |= {f"resnet_101.conv_buffer{i + 1}": (c, c, 1, 1) for i, c in enumerate(channels[:2])}
    shapes = {f"{name}.W": shape for name, shape in layers.items()}
    shapes |= {f"{name}.a": (2 * shape[1], 1) for name, shape in layers.items()}
    shapes |= {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    state = made(shapes)
    head = imported("msrn", msrn.RELEASED, state, channels)
    scales = ((4, channels[0]), (2, channels[1]), (1, channels[2]))
    maps = [normal(f"x{c}", (2, c, size[0] * s - (s > 1), size[1] * s)) for s, c in scales]
    w = {key: value.numpy() for key, value in state.items()}
    expected = loops.msrn(
        w, [x.numpy() for x in maps], head.branch.words.numpy(), head.branch.edges.numpy()
    )
    agree("msrn", head, tuple(maps), expected, size)


def agree(method, head, features, expected, size):
    largest = np.abs(expected).max()
    with torch.no_grad():
        found = head(features).logits.numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * largest)
        if any(side % 2 for side in size):
            head.ceil_mode = True
            assert np.abs(head(features).logits.numpy() - expected).max() > 1e-3 * largest
