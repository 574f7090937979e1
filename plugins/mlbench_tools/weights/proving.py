"""Compare what our plugins compute with what parity fixtures expect."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlbench import registry
from mlbench.contracts.made_up import known_context
from mlbench.data.mixing import MIXINGS, Spliced
from mlbench.metrics.average_precision import average_precision
from mlbench.metrics.precision_recall import precision_recall_f1
from mlbench.types import (
    WORD_WIDTH,
    Angles,
    DataError,
    LabelContext,
    Level,
    LossContext,
    MlbenchError,
    Proof,
    Released,
    Settings,
    Targets,
    evaluate_loss,
)
from mlbench_tools.scoring.ranking import interpolated_average_precision
from mlbench_tools.weights.conversion import Converted, convert, fill, marked, recognise, releases
from mlbench_tools.weights.fixtures import Fixture, Inputs
from mlbench_tools.weights.importing import assemble, graph_state, released_settings

DEEPEST_STRIDE = 32
PRF = ("OP", "OR", "OF1", "CP", "CR", "CF1")


# --------------------------------------------------------------------------------------- comparing
@dataclass(frozen=True)
class ArrayError:
    """The largest error of one array, absolute and relative to the largest expected number."""

    array: str
    absolute: float
    relative: float
    passed: bool


@dataclass(frozen=True)
class FixtureResult:
    """The errors of one fixture, or why it could not be computed.

    Attributes:
        left_out: why nothing was computed, if the method or this form of it is not here.
    """

    name: str
    method: str
    kind: str
    tolerance: float
    arrays: tuple[ArrayError, ...] = ()
    error: str | None = None
    left_out: str | None = None

    @property
    def passed(self) -> bool:
        """True if there is an array and all of them agree."""
        return self.error is None and bool(self.arrays) and all(a.passed for a in self.arrays)


def prove(fixture: Fixture) -> FixtureResult:
    """Compute what a fixture expects and compare; an exception becomes the result's error."""
    result = FixtureResult(fixture.name, fixture.method, fixture.kind, fixture.tolerance)
    if reason := _left_out(fixture):
        return replace(result, left_out=reason)
    try:
        return replace(result, arrays=_compare_all(fixture))
    except Exception as error:  # one malformed fixture must not hide the others
        kind = "" if isinstance(error, MlbenchError) else f"{type(error).__name__}: "
        return replace(result, error=f"{kind}{error}")


def _left_out(fixture: Fixture) -> str:
    """Why a fixture's method, or its form, is not here; empty if it is a plugin or a mixing.

    A loss's attribute ``left_out`` names values of fixture fields that it does not offer.
    """
    kinds = registry.kinds_of(fixture.method)
    if not kinds and fixture.kind != "metrics" and fixture.method not in MIXINGS:
        return f"{fixture.method} is not here"
    if "loss" in kinds:
        loss = registry.find("loss", fixture.method).load()
        for field, reasons in getattr(loss, "left_out", {}).items():
            if reason := reasons.get(fixture.fields.get(field)):
                return f"{field} {fixture.fields[field]!r}: {reason}"
    return ""


def _compare_all(fixture: Fixture) -> tuple[ArrayError, ...]:
    kinds: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
        "head": compute_head,
        "checkpoint": compute_checkpoint,
        "loss": compute_loss,
        "metrics": compute_metrics,
        "mix": compute_mix,
    }
    if fixture.kind not in kinds:
        raise DataError(f"unknown kind {fixture.kind!r} of fixture; known: {', '.join(kinds)}")
    found = kinds[fixture.kind](fixture)
    if missing := [array for array in fixture.wanted if array not in found]:
        raise DataError(f"{fixture.method} gives no {', '.join(missing)}")
    if not fixture.wanted:
        raise DataError("the .npz holds nothing to compare with")
    return tuple(_compare(k, found[k], v, fixture.tolerance) for k, v in fixture.wanted.items())


def _compare(
    array: str, found: Tensor, expected: NDArray[np.float64], tolerance: float
) -> ArrayError:
    ours = found.detach().double().numpy()
    if ours.shape != expected.shape:
        raise DataError(f"{array} is {list(ours.shape)}, but {list(expected.shape)} is expected")
    absolute = float(np.abs(ours - expected).max(initial=0))
    largest = float(np.abs(expected).max(initial=0))
    relative = absolute / largest if largest else absolute
    # A NaN compares as false, and so fails.
    return ArrayError(array, absolute, relative, relative <= tolerance)


# ------------------------------------------------------------- heads and whole models, in float64
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


# ------------------------------------------------------------------------------ losses and metrics
def compute_loss(fixture: Fixture) -> dict[str, Tensor]:
    """The value of a loss, and its gradient with respect to its input: logits or cosines.

    A loss's attribute ``fixture_names`` maps names of fixture fields to names of its options. An
    input with the name of an option sets it; ``soft_targets`` take the place of known targets.
    """
    inputs = fixture.inputs()
    given = "cosines" if "cosines" in inputs else "logits"
    targets_BC = torch.from_numpy(inputs["targets"].astype(np.int8))
    if "soft_targets" in inputs:
        targets_BC = inputs.tensor("soft_targets").where(targets_BC >= 0, -1)
    labels = known_context(np.eye(targets_BC.shape[1], dtype=np.float32), images=1)
    factory = registry.find("loss", fixture.method).load()
    renamed: Mapping[str, str] = getattr(factory, "fixture_names", {})
    known = registry.options(factory, "loss")
    fields = {renamed.get(name, name): value for name, value in fixture.fields.items()}
    fields |= {name: inputs[name].tolist() for name in inputs.written if name in known}
    loss = factory(labels, **{name: value for name, value in fields.items() if name in known})
    input_BC = inputs.tensor(given).requires_grad_()
    logits_BC = input_BC
    if given == "cosines":
        angles = getattr(loss, "angles", Angles(scale=1.0))
        logits_BC = angles.scale * (2 * ((input_BC + 1) / 2) ** angles.exponent - 1)
    epoch = fixture.fields.get("epoch", 1)
    context = LossContext(epoch, fixture.fields.get("epochs", epoch))
    value = evaluate_loss(loss, logits_BC, targets_BC, context)
    return {"loss": value, "grad": torch.autograd.grad(value, input_BC)[0]}


def compute_mix(fixture: Fixture) -> dict[str, Tensor]:
    """The mixed images and labels of each grid of a fixture."""
    inputs = fixture.inputs()
    images, targets = inputs.tensor("images"), inputs.tensor("targets")
    found = []
    for one in fixture.fields["grids"]:
        grid = one["rows"], one["cols"]
        sources = np.array(one["sources"]).reshape(-1, grid[0] * grid[1])
        dropped = np.zeros(sources.shape, bool)
        for row, cells in enumerate(one["dropped"]):
            dropped[row, cells] = True
        mix = Spliced(len(images), grid, sources, dropped)
        rows = np.arange(len(images), mix.rows)
        there = mix.needs(rows)
        found.append(mix.apply(images[there], targets[there], rows, images.new_zeros(1, 1, 1, 1)))
    return {
        "mixed_images": torch.cat([torch.as_tensor(one.inputs) for one in found]),
        "mixed_targets": torch.cat([one.targets for one in found]),
    }


def compute_metrics(fixture: Fixture) -> dict[str, Tensor]:
    """Every metric that fixtures may expect."""
    inputs = fixture.inputs()
    scores = inputs["scores"]
    targets = inputs["targets"].astype(np.int8)
    found: dict[str, Any] = {
        "ap_plain": average_precision(scores, targets),
        "ap_interpolated": 100 * interpolated_average_precision(scores, targets),
        "map_asl": 100 * average_precision(scores, targets).mean(),
        **_prf(scores, targets, ""),
    }
    if "difficult" in inputs:
        difficult = inputs["difficult"].astype(bool)
        unknown = np.where(difficult, -1, targets).astype(np.int8)
        found["ap_ignore_difficult"] = average_precision(scores, unknown)
        # The published meter counts difficult labels as absent.
        found |= _prf(scores, np.where(difficult, 0, targets).astype(np.int8), "_difficult")
    return {name: torch.as_tensor(value) for name, value in found.items()}


def _prf(scores: NDArray[np.float64], targets: Targets, ending: str) -> dict[str, Any]:
    every = precision_recall_f1(scores, targets)
    top3 = precision_recall_f1(scores, targets, top_k=3)
    return {
        f"prf{ending}": np.array([every[name] for name in PRF]),
        f"prf_top3{ending}": np.array([top3[name] for name in PRF]),
    }
