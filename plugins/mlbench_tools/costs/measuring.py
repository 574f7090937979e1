"""Measure how fast models are, in turns and with random weights, and store the timings.

``mlbench run`` calls ``measure_matrix`` after its runs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from torch import Tensor, nn

from mlbench import registry
from mlbench.cli.console import errors
from mlbench.cli.progress import Reminder
from mlbench.engine.cost import device_name, keep_freed_memory
from mlbench.engine.model import MultiLabelModel, autocast
from mlbench.executors.run_status import Followed
from mlbench.provenance import commit
from mlbench.store import Store
from mlbench.text import command_line, count
from mlbench.types import (
    Backbone,
    MeasureError,
    ModelCost,
    Network,
    Places,
    Precision,
    RunSpec,
    Timing,
)
from mlbench_tools.costs.counting import make_head
from mlbench_tools.costs.timing import Call, Runtime, TimedPair, best_batch, one_thread, time_pairs

BATCH_SIZES = (1, 16)
MATRIX_SECONDS = 1.0
"""Seconds for each model and batch size after a matrix; `mlbench measure` takes longer."""
LARGEST = 256
"""Largest batch size that is tried for the throughput."""


@dataclass(frozen=True)
class Bench:
    """Where and how models are timed.

    Attributes:
        runtime: name of a plugin.
        seconds: about how long each model and batch size is timed.
    """

    device: torch.device
    precision: Precision
    runtime: str
    seconds: float

    @property
    def threads(self) -> int:
        """Threads of the CPU that compute; 0 on other devices."""
        return int(self.device.type == "cpu")

    def has_measured(self, cost: ModelCost) -> bool:
        """True if a measurement was made at this place."""
        here = (device_name(self.device), self.threads, self.precision, self.runtime)
        return here == (cost.device, cost.threads, cost.precision, cost.runtime)

    def missing(self, networks: Iterable[Network], costs: Iterable[ModelCost]) -> list[Network]:
        """The networks that were not measured at this place, each once."""
        done = {cost.network.name for cost in costs if self.has_measured(cost)}
        wanted = {network.name: network for network in networks}
        return [network for name, network in wanted.items() if name not in done]


def default_runtime(device: torch.device) -> str:
    """CUDA graphs where there are any: eager mode on a GPU measures Python."""
    return "cuda-graph" if device.type == "cuda" else "eager"


def measure_matrix(specs: Sequence[RunSpec], places: Places) -> None:
    """Measure the models of a matrix that were not measured at this place yet, in turns."""
    store, device = Store(places.results), torch.device(places.device)
    records = [record for spec in specs if (record := store.find(spec.run_id)) is not None]
    if not records:
        return
    bench = Bench(device, records[0].spec.precision, default_runtime(device), MATRIX_SECONDS)
    networks = [network for r in records if (network := Network.of(r)) is not None]
    missing = bench.missing(networks, store.read_costs()[0])
    for name, why in measure_networks(missing, bench, store).items():
        errors.print(f"latency not measured: {name}: {why}", style="red")


class BareBackbone(nn.Module):
    """Images -> feature maps: a model without its head."""

    def __init__(self, model: MultiLabelModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Normalise the images and compute the maps."""
        return self.model.features(images_B3HW)


@dataclass
class _Subject:
    """A network that is being measured."""

    network: Network
    model: MultiLabelModel
    bare: BareBackbone
    timings: list[Timing] = field(default_factory=list)
    best: int = 1


def measure_networks(networks: Iterable[Network], bench: Bench, store: Store) -> dict[str, str]:
    """Time all networks in rotating order against their bare backbones; write a file for each.

    All networks take turns: otherwise, a time of other work would fall on one backbone alone.
    Weights are random: how long a model takes does not depend on their values.

    Returns:
        Names of the networks that could not be measured -> why.

    Raises:
        StoreError: a file cannot be written.
    """
    refused: dict[str, str] = {}
    load = getattr(os, "getloadavg", lambda: (0.0,))()[0]
    keep_freed_memory(True)  # allocating pages takes up to a third of the time of a batch
    if bench.device.type == "cuda" and bench.device.index is not None:
        torch.cuda.set_device(bench.device)  # graphs and events are the current device's
    subjects = _build(networks, bench.device, refused)
    if not subjects:
        return refused
    errors.print(f"measuring {count(len(subjects), 'model')} on {device_name(bench.device)}")
    progress = Followed("", 0)
    reminder = Reminder("", lambda: [f"measuring: {progress.now.text}"])
    with reminder, one_thread(), torch.inference_mode(), autocast(bench.device, bench.precision):
        for size in BATCH_SIZES:
            progress.phase(f"batch size {size}")
            _time([(one, size) for one in subjects], bench, refused, progress)
        progress.phase("throughput")
        for done, one in enumerate(subjects):
            progress.count(done, len(subjects))
            one.best = best_batch(one.model, _images(one.network, LARGEST, bench.device))
        others = [(one, one.best) for one in subjects if one.best not in BATCH_SIZES]
        _time(others, bench, refused, progress)
    for one in subjects:
        if one.timings:
            store.write_cost(_cost(one, bench, load))
    return refused


def _build(
    networks: Iterable[Network], device: torch.device, refused: dict[str, str]
) -> list[_Subject]:
    """Make the models; those on one backbone share it, so that only their heads differ."""
    trunks: dict[str, Backbone] = {}
    bares: dict[str, BareBackbone] = {}
    subjects = []
    for network in networks:
        key = network.trunk
        try:
            if key not in trunks:
                factory = registry.find("backbone", network.backbone).load()
                size, options = network.image_size, network.backbone_options
                trunks[key] = factory(weights="none", image_size=size, **options)
            model = _model(network, trunks[key])
        except (Exception, SystemExit) as error:  # of any plugin; the other models are measured
            refused[network.name] = str(error)
            continue
        # Autocast caches the casts of trainable parameters only.
        model.eval().to(device).to(memory_format=torch.channels_last).requires_grad_(True)
        subjects.append(_Subject(network, model, bares.setdefault(key, BareBackbone(model))))
    return subjects


def _model(network: Network, trunk: Backbone) -> MultiLabelModel:
    head = make_head(network.head, network.head_options, trunk.spec, network.labels)
    model = MultiLabelModel(trunk, head, trunk.mean, trunk.std)
    parameters = sum(p.numel() for p in model.parameters())
    if parameters != network.parameters:
        raise MeasureError(
            f"built here, the model has {parameters:,} parameters and not {network.parameters:,}: "
            "its code changed, or its label vectors have another width; train it again"
        )
    return model


def _images(network: Network, batch_size: int, device: torch.device) -> Tensor:
    side = network.image_size
    pixels = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8)
    return pixels.to(device)


def _time(
    wanted: Sequence[tuple[_Subject, int]],
    bench: Bench,
    refused: dict[str, str],
    progress: Followed,
) -> None:
    """Time each model at a batch size; what cannot be prepared is refused."""
    runtime: Runtime = registry.find("runtime", bench.runtime).load()
    bares: dict[tuple[str, int], Call] = {}
    ready, pairs = [], []
    for done, (one, size) in enumerate(wanted):
        progress.count(done, len(wanted))
        images, key = _images(one.network, size, bench.device), (one.network.trunk, size)
        try:
            if key not in bares:
                bares[key] = runtime(one.bare, images)
            pairs.append(TimedPair(runtime(one.model, images), bares[key], size))
        except (Exception, SystemExit) as error:  # unsupported by the runtime, or memory is full
            refused[one.network.name] = f"batch size {size}: {type(error).__name__}: {error}"
            continue
        ready.append(one)
    timings = time_pairs(pairs, bench.device, bench.seconds, progress.count)
    for one, timing in zip(ready, timings, strict=True):
        if timing is not None:
            one.timings.append(timing)


def _cost(one: _Subject, bench: Bench, load: float) -> ModelCost:
    network = one.network
    used = [registry.find("backbone", network.backbone), registry.find("head", network.head)]
    versions = {name: version(name) for name in ("torch", "timm")}
    return ModelCost(
        network=network,
        device=device_name(bench.device),
        threads=bench.threads,
        precision=bench.precision,
        runtime=bench.runtime,
        timings=tuple(sorted(one.timings, key=lambda timing: timing.batch_size)),
        best_batch=one.best,
        load=load,
        versions=versions
        | {"python": platform.python_version()}
        | {f"{p.kind} {p.name}": f"{p.distribution} {p.version}" for p in used},
        commit=commit(),
        command=command_line(),
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
    )
