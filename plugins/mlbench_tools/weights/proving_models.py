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
from mlbench.contracts.made_up import known_context
from mlbench.types import WORD_WIDTH, DataError, LabelContext, Level, Proof, Released, Settings
from mlbench_tools.weights.conversion import Converted, convert, fill, marked, recognise, releases
from mlbench_tools.weights.fixtures import Fixture, Inputs
from mlbench_tools.weights.importing import assemble, graph_state, released_settings

DEEPEST_STRIDE = 32


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
    state: Mapping[str, Tensor] = authors_state(fixture)
    known = releases(fixture.method)
    released = next((one for one in known if marked(one, state)), known[0])
    converted = convert(released, state, fixture.name)
    settings, defaults = _settings(fixture, released, converted)
    factory = registry.find("head", settings.head).load()
    features = _features(fixture.inputs())
    spec = tuple(
        Level(x.shape[1], DEEPEST_STRIDE >> (len(features) - 1 - i)) for i, x in enumerate(features)
    )

    @functools.cache
    def head(**variant: Any) -> nn.Module:
        options = {**settings.head_options, **released.handed_over, **variant}
        made: nn.Module = factory(spec, _labels(fixture), **options).double()
        graph = graph_state(released, _graph(fixture.inputs()), defaults | options)
        fill(made, {**graph, **converted.head}, fixture.name, released)
        return made.eval()

    return _outputs(fixture, released, features, head)


@_float64()
def compute_checkpoint(fixture: Fixture) -> dict[str, Tensor]:
    """The expected arrays of a fixture of kind ``checkpoint``, by a whole model from an image."""
    state: Mapping[str, Tensor] = authors_state(fixture)
    released, _, state = recognise(fixture.method, state, fixture.name)
    converted = convert(released, state, fixture.name)
    inputs = fixture.inputs()
    image_B3HW = inputs.tensor("image")
    settings, _ = _settings(fixture, released, converted)
    settings = settings.model_copy(update={"image_size": image_B3HW.shape[-1]})
    model = assemble(
        *(settings, _labels(fixture), released, converted),
        source=fixture.name,
        matrix_CC=_graph(inputs),
    )
    with torch.no_grad():
        features = model.backbone(image_B3HW)
    return _outputs(fixture, released, features, lambda **_: model.head)  # type: ignore[arg-type]


def authors_state(fixture: Fixture) -> dict[str, Tensor]:
    """Weights under the authors' names; an expected array with a weight's name is that weight."""
    state = {k: fixture.generator.weight(k, shape) for k, shape in fixture.weight_keys.items()}
    for key in fixture.fields.get("negated", ()):
        state[key] = -state[key]
    given = {k: torch.from_numpy(v) for k, v in fixture.expected.items() if k in state}
    return {key.removeprefix("module."): value for key, value in {**state, **given}.items()}


def _settings(
    fixture: Fixture, released: Released, converted: Converted
) -> tuple[Settings, dict[str, Any]]:
    """The settings of a fixture, and the defaults of the head's options.

    Options of the head follow from the shapes of its weights and from the fixture's fields.
    """
    plain = released_settings(fixture.method, "", released)
    defaults = registry.options(registry.find("head", plain.head).load())
    options = {
        **plain.head_options,
        **converted.options,
        **{name: value for name, value in fixture.fields.items() if name in defaults},
    }
    return plain.model_copy(update={"head_options": options}), defaults


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
    inputs = fixture.inputs()
    graph = _graph(inputs)
    matrix = torch.empty(0) if graph is None else graph
    known = inputs.tensor("known").to(torch.int8) if "known" in inputs else None
    found = {}
    for array in fixture.wanted:
        made = head(**released.variants.get(array, {}))
        if array in released.outputs:
            proof = Proof(made, features, matrix, fixture.fields, known)
            found[array] = released.outputs[array](proof)
        elif array == "logits" or array in released.variants:
            found[array] = made(features).logits
    return found
