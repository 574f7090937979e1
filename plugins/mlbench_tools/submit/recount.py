"""Recount parameters and multiply-accumulates from the settings, without weights or data."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from mlbench import registry
from mlbench.data.labels import WIDTH
from mlbench.types import RunRecord
from mlbench_tools.submit.remarks import Remark, as_warning, finding

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlbench.types import FeatureSpec

TOLERANCE = 1e-3
"""Relative, of GMACs: versions of torch may or may not count a minor operation."""
IMAGES = 2
"""Images that the work is counted for, then divided by, as in records."""


class Recount(NamedTuple):
    """Parameters, and 1e9 multiply-accumulates an image, of a backbone or a head."""

    parameters: int
    gmacs: float


def costs(record: RunRecord) -> Iterator[Remark]:
    """Compare parameters and GMACs with those of the backbone and the head of the settings.

    Label vectors from a file are assumed to have the usual width; other numbers are then a warning.
    """
    cost, ran = record.efficiency, record.spec.settings
    if cost is None:
        if record.status == "ok":
            yield finding("the record has no costs", "parameters and GMACs", "none")
        return
    yield Remark("not checked", "latency and memory: they would have to be measured again")
    options = json.dumps(ran.head_options, sort_keys=True)
    labels = len(record.label_names)
    try:
        backbone = _backbone(ran.backbone, ran.image_size).cost
        head = _head(ran.backbone, ran.image_size, ran.head, options, labels)
    except Exception as error:  # plugins raise anything on settings that nobody vouches for
        yield Remark("not checked", f"parameters and GMACs: {type(error).__name__}: {error}")
        return
    found = Recount(cost.parameters_backbone, cost.gmacs_backbone)
    yield from _differences("backbone", ran.backbone, backbone, found)
    found = Recount(cost.parameters_head, cost.gmacs_head)
    name = f"{ran.head} with {labels} labels"
    remarks = _differences("head", name, head, found)
    from_file = record.spec.words.startswith("sha256:") or bool(record.spec.checkpoint)
    yield from map(as_warning, remarks) if from_file else remarks


class _Maps(NamedTuple):
    """The feature maps of a backbone on the ``meta`` device, and its cost."""

    spec: FeatureSpec
    maps: tuple[Tensor, ...]
    cost: Recount


@functools.lru_cache(maxsize=64)
def _backbone(name: str, image_size: int) -> _Maps:
    import torch

    from mlbench.backbones import outline
    from mlbench.engine.flops import count

    module: Any = outline(name, image_size)
    images = torch.zeros(IMAGES, 3, image_size, image_size, device="meta")
    maps: list[tuple[Tensor, ...]] = []
    macs = count(module, lambda: maps.append(module(images)), [images], name)
    return _Maps(module.spec, maps[0], _cost(module, macs))


@functools.lru_cache(maxsize=64)
def _head(backbone: str, image_size: int, head: str, options: str, labels: int) -> Recount:
    """Count a head; ``options`` are JSON."""
    import torch

    from mlbench.contracts.made_up import label_context
    from mlbench.engine.flops import count

    spec, maps, _ = _backbone(backbone, image_size)
    factory = registry.find("head", head).load()
    with torch.device("meta"):
        module = factory(spec, label_context(labels, WIDTH), **json.loads(options)).eval()
        return _cost(module, count(module, lambda: module(maps), maps, head))


def _cost(module: nn.Module, macs: int) -> Recount:
    return Recount(sum(p.numel() for p in module.parameters()), macs / IMAGES / 1e9)


def _differences(part: str, name: str, expected: Recount, found: Recount) -> Iterator[Remark]:
    if expected.parameters != found.parameters:
        text = f"parameters_{part} is not what {name} has"
        yield finding(text, expected.parameters, found.parameters)
    if not math.isclose(expected.gmacs, found.gmacs, rel_tol=TOLERANCE):
        yield finding(f"gmacs_{part} is not what {name} takes", expected.gmacs, found.gmacs)
