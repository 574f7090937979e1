"""The authors' tensors: their names, and imported heads on maps of odd size.

What heads compute under these names is compared by ``tests/tools/weights/test_parity.py``.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from mlbench import registry
from mlbench.contracts.made_up import known_context
from mlbench.types import Level
from mlbench_plugins.layers.decoder import decoder_from_authors
from mlbench_plugins.methods import add_gcn, csra, graph_branch, ml_gcn, msrn, query2label, ssgrl
from mlbench_tools.weights.conversion import convert, fill
from mlbench_tools.weights.importing import released_settings
from tests.parity import loops
from tests.parity.fixtures import normal, ssgrl_shapes, uniform, weight, weights

FIXTURES = {
    "addgcn_c6": add_gcn.from_authors,
    "csra_h4_c6": csra.from_authors,
    "gcnbranch_gcn_max_asl": graph_branch.from_authors,
    "mldecoder_c26_g10": decoder_from_authors,
    "mlgcn_c6": ml_gcn.from_authors,
    "msrn_c6": msrn.from_authors,
    "q2l_c6_e1d2": query2label.from_authors,
    "ssgrl_c5_d32": ssgrl.from_authors,
}
PREFIXES = {"csra_h4_c6": "classifier.", "mldecoder_c26_g10": "head."}
TRUNK = ("conv1", "layer1.0.conv1", "features.0", "resnet_101.layer1.0.conv1", "body.conv1.0")


@pytest.mark.parametrize("fixture", FIXTURES)
def test_prefixes_and_the_trunk_do_not_matter(fixture):
    convert, state = FIXTURES[fixture], weights(fixture)
    expected = convert(state)
    trunk = {f"{name}.weight": torch.zeros(1) for name in TRUNK} | {"backbone.1.pe": torch.ones(1)}
    for prefix in ("module.", PREFIXES.get(fixture, ""), "module." + PREFIXES.get(fixture, "")):
        found = convert({prefix + key: value for key, value in (state | trunk).items()})
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


def test_heads_of_csra_stack_in_their_order():
    authors = weights("csra_h4_c6")
    state = csra.from_authors(dict(reversed(authors.items())))
    for i, value in enumerate(authors.values()):
        assert torch.equal(state["weight"][i], value[:, :, 0, 0])


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
    pooled = avg_pool2d(x, 2)  # a last row or column without a partner is dropped
    expected = loops.ssgrl(state, pooled, head.words.vectors, head.adjacency, 3, False)
    agree(head, (x,), expected, size)


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
    expected = loops.msrn(state, maps, head.branch.words, head.branch.edges)
    agree(head, tuple(maps), expected, size)


def agree(head, features, expected, size):
    largest = expected.abs().max().item()
    with torch.no_grad():
        found = head(features).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * largest)
        if any(side % 2 for side in size):
            head.ceil_mode = True
            assert (head(features).logits - expected).abs().max() > 1e-3 * largest
