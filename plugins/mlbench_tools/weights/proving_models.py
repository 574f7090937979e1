"""Compute parity fixtures of heads and of whole released models, in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlbench import registry
from mlbench.build import CORE_PARAMETERS
from mlbench.contracts.made_up import known_context
from mlbench.text import shorten
from mlbench.types import DataError, LabelContext, Level, Proof, Released, WeightsError
from mlbench_tools.weights.conversion import Converted, convert, fill, marked, releases
from mlbench_tools.weights.fixtures import Fixture, Inputs
from mlbench_tools.weights.importing import assemble, graph_state, released_settings

DEEPEST_STRIDE = 32
WORD_WIDTH = 300
"""Width of word vectors that a fixture does not give."""


@contextmanager
def _float64() -> Iterator[None]:
    """Make new tensors float64 by default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@_float64()
def compute_head(fixture: Fixture) -> dict[str, Tensor]:
    """The expected arrays of a fixture of kind ``head``, as our head computes them."""
    released, converted = _convert(fixture)
    settings = released_settings(fixture.method, "", released)
    factory = registry.find("head", settings.head).load()
    features = _features(fixture.inputs())
    spec = tuple(
        Level(x.shape[1], DEEPEST_STRIDE >> (len(features) - 1 - i)) for i, x in enumerate(features)
    )
    known = registry.options(factory, CORE_PARAMETERS)
    options = settings.head_options | _options(fixture, released, converted, known)

    @functools.cache
    def head(**variant: Any) -> nn.Module:
        asked = {**options, **released.handed_over, **variant}
        made: nn.Module = factory(spec, _labels(fixture), **asked).double()
        graph = graph_state(released, _graph(fixture.inputs()), {**known, **asked})
        fill(made, {**graph, **converted.head}, fixture.name, released)
        return made.eval()

    return _outputs(fixture, released, features, head)


@_float64()
def compute_checkpoint(fixture: Fixture) -> dict[str, Tensor]:
    """The expected arrays of a fixture of kind ``checkpoint``: an image through a whole model."""
    released, converted = _convert(fixture)
    if not marked(released, authors_state(fixture)):
        raise WeightsError(f"{fixture.name}: its names are not those of {released.title}")
    inputs = fixture.inputs()
    image_B3HW = inputs.tensor("image")
    plain = released_settings(fixture.method, "", released)
    known = registry.options(registry.find("head", plain.head).load(), CORE_PARAMETERS)
    options = plain.head_options | _options(fixture, released, converted, known)
    settings = plain.model_copy(
        update={"head_options": options, "image_size": image_B3HW.shape[-1]}
    )
    model = assemble(
        *(settings, _labels(fixture), released, converted),
        source=fixture.name,
        matrix_CC=_graph(inputs),
    )
    with torch.no_grad():
        features = model.backbone(image_B3HW)
    return _outputs(fixture, released, features, lambda **_: model.head)  # type: ignore[arg-type]


def _convert(fixture: Fixture) -> tuple[Released, Converted]:
    """The fixture's weights under our names, and the release that they belong to.

    Raises:
        WeightsError: a name is left over.
    """
    known, state = releases(fixture.method), authors_state(fixture)
    released = next((one for one in known if marked(one, state)), known[0])
    converted = convert(released, state, fixture.name)
    if converted.left_over:
        raise WeightsError(
            f"{fixture.name}: {len(converted.left_over)} names have no place in {fixture.method}: "
            f"{shorten(converted.left_over)}"
        )
    return released, converted


def authors_state(fixture: Fixture) -> dict[str, Tensor]:
    """Weights under the authors' names; an expected array with the name of a weight is given."""
    state = {k: fixture.generator.weight(k, shape) for k, shape in fixture.weight_keys.items()}
    for key in fixture.fields.get("negated", ()):
        state[key] = -state[key]
    given = {k: torch.from_numpy(v) for k, v in fixture.expected.items() if k in state}
    return {key.removeprefix("module."): value for key, value in {**state, **given}.items()}


def _options(
    fixture: Fixture, released: Released, converted: Converted, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of the head by the shapes of its weights and the fields of the fixture."""
    named = {name: value for name, value in fixture.fields.items() if name in known}
    return {**converted.options, **named, **released.fixture_options(fixture.fields)}


def _features(inputs: Inputs) -> tuple[Tensor, ...]:
    names = sorted(name for name in inputs.written if name.startswith("features"))
    if not names:
        raise DataError("the fixture has no input 'features' (or 'features0', 'features1', ...)")
    return tuple(inputs.tensor(name) for name in names)


def _labels(fixture: Fixture) -> LabelContext:
    count = int(fixture.fields["classes"])
    inputs = fixture.inputs()
    words = next((inputs[n] for n in ("word_features", "word_vectors") if n in inputs), None)
    embeddings = np.zeros((count, WORD_WIDTH)) if words is None else words
    return known_context(np.eye(count), embeddings, images=1)


def _graph(inputs: Inputs) -> Tensor | None:
    """P(j | i) [C, C], with the diagonal of the fixture."""
    for name in ("adjacency", "conditional_probability"):
        if name in inputs:
            return inputs.tensor(name)
    if "cooccurrence_counts" in inputs:
        counts_CC, positives_C = inputs["cooccurrence_counts"], inputs["label_counts"]
        return torch.from_numpy(counts_CC / positives_C[:, None])
    return None


@torch.no_grad()
def _outputs(
    fixture: Fixture,
    released: Released,
    features: tuple[Tensor, ...],
    head: Callable[..., nn.Module],
) -> dict[str, Tensor]:
    graph = _graph(fixture.inputs())
    matrix = torch.empty(0) if graph is None else graph
    found = {}
    for array in fixture.expected:
        if array in fixture.weight_keys:
            continue
        made = head(**released.variants.get(array, {}))
        if array in released.outputs:
            found[array] = released.outputs[array](Proof(made, features, matrix, fixture.fields))
        elif array == "logits" or array in released.variants:
            found[array] = made(features).logits
    return found
