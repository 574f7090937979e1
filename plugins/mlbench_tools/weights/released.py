"""Heads and whole released models: what they give for a fixture's weights and inputs."""

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
from mlbench.types import DataError, LabelContext, Level, Proof, Recipe, Released, WeightsError
from mlbench_tools.weights.conversion import (
    Converted,
    convert,
    few,
    fill,
    from_labels,
    marked,
    releases,
)
from mlbench_tools.weights.fixtures import Fixture
from mlbench_tools.weights.importing import assemble, graph_state, released_settings
from mlbench_tools.weights.rules import Inputs

DEEPEST_STRIDE = 32
WORD_WIDTH = 300
"""Of word vectors that a fixture does not give."""


@contextmanager
def float64() -> Iterator[None]:
    """Everything that is made without saying otherwise is made in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def of_head(fixture: Fixture) -> dict[str, Tensor]:
    """The expected arrays of a fixture of kind ``head``, as our head computes them."""
    with float64():
        state = authors_state(fixture)
        released, converted = _converted(fixture, state)
        recipe: Recipe = registry.find("recipe", fixture.method).load()
        name = recipe.settings.head
        inputs = fixture.inputs()
        features = _features(inputs)
        spec = tuple(
            Level(x.shape[1], DEEPEST_STRIDE >> (len(features) - 1 - i))
            for i, x in enumerate(features)
        )
        known = registry.options(registry.find("head", name).load(), CORE_PARAMETERS)
        options = {
            **recipe.settings.head_options,
            **released.settings.get("head_options", {}),
            **converted.options,
            **_fields(fixture, released, known),
            **released.handed_over,
        }

        @functools.cache
        def head(**variant: Any) -> nn.Module:
            asked = {**options, **variant}
            made: nn.Module = registry.find("head", name).load()(spec, _labels(fixture), **asked)
            made = made.double()
            graph = graph_state(released, _graph(inputs), {**known, **asked})
            fill(made, {**graph, **converted.head}, fixture.name, from_labels(released))
            return made.eval()

        return _outputs(fixture, released, features, head)


def of_checkpoint(fixture: Fixture) -> dict[str, Tensor]:
    """The expected arrays of a fixture of kind ``checkpoint``: an image through a whole model."""
    with float64():
        state = authors_state(fixture)
        released, converted = _converted(fixture, state)
        if not marked(released, state):
            raise WeightsError(f"{fixture.name}: its names are not those of {released.title}")
        inputs = fixture.inputs()
        image_B3HW = inputs.tensor("image")
        plain = released_settings(fixture.method, "", released)
        known = registry.options(registry.find("head", plain.head).load(), CORE_PARAMETERS)
        told = {**converted.options, **_fields(fixture, released, known)}
        settings = plain.model_copy(
            update={
                "head_options": {**plain.head_options, **told},
                "image_size": image_B3HW.shape[-1],
            }
        )
        graph = _graph(inputs)
        model = assemble(
            settings, _labels(fixture), released, converted, source=fixture.name, matrix=graph
        )
        with torch.no_grad():
            features = model.backbone(image_B3HW)
        return _outputs(fixture, released, features, lambda **_: model.head)  # type: ignore[arg-type]


def _converted(fixture: Fixture, state: Mapping[str, Tensor]) -> tuple[Released, Converted]:
    """The fixture's weights by the release that they belong to.

    Raises:
        WeightsError: a name is left over.
    """
    known = releases(fixture.method)
    released = next((one for one in known if marked(one, state)), known[0])
    converted = convert(released, state, fixture.name)
    if converted.left_over:
        raise WeightsError(
            f"{fixture.name}: {len(converted.left_over)} names have no place in {fixture.method}: "
            f"{few(converted.left_over)}"
        )
    return released, converted


def authors_state(fixture: Fixture) -> dict[str, Tensor]:
    """Weights under the authors' names; an expected array of a weight's name is that weight."""
    state = {
        key: fixture.generator.weight(key, shape) for key, shape in fixture.fields.get("keys", ())
    }
    for key in fixture.fields.get("negated", ()):
        state[key] = -state[key]
    given = {
        key: torch.from_numpy(fixture.expected[key]) for key in state if key in fixture.expected
    }
    return {key.removeprefix("module."): value for key, value in {**state, **given}.items()}


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
    """P(j | i) [C, C], its diagonal as the fixture has it."""
    for name in ("adjacency", "conditional_probability"):
        if name in inputs:
            return inputs.tensor(name)
    if "cooccurrence_counts" in inputs:
        counts_CC, positives_C = inputs["cooccurrence_counts"], inputs["label_counts"]
        return torch.from_numpy(counts_CC / positives_C[:, None])
    return None


def _fields(fixture: Fixture, released: Released, known: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the head that the fixture's fields name."""
    named = {name: value for name, value in fixture.fields.items() if name in known}
    return {**named, **released.fixture_options(fixture.fields)}


@torch.no_grad()
def _outputs(
    fixture: Fixture,
    released: Released,
    features: tuple[Tensor, ...],
    head: Callable[..., nn.Module],
) -> dict[str, Tensor]:
    graph = _graph(fixture.inputs())
    found = {}
    for array in fixture.expected:
        if any(array == key for key, _ in fixture.fields.get("keys", ())):
            continue  # it was given
        variant = released.variants.get(array, {})
        made = head(**variant)
        if array in released.outputs:
            matrix = torch.empty(0) if graph is None else graph
            found[array] = released.outputs[array](Proof(made, features, matrix, fixture.fields))
        elif array == "logits" or array in released.variants:
            found[array] = made(features).logits
    return found
