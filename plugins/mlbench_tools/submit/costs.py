"""Checks of costs and of whose plugins took part: what could be, whether or not it is true."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from mlbench import registry
from mlbench.types import Efficiency, PluginError
from mlbench_tools.submit.case import Case
from mlbench_tools.submit.remarks import Remark, finding, not_checked, warning

OURS = "mlbench-mlic"
"""The distribution whose heads are known to learn something for every label."""
HOSTS = ("cpu", "mps")
"""What a record's environment names a device that is not CUDA's; of that it has the product."""
CUDA = r"(?i)nvidia|tesla|geforce|quadro|amd (instinct|radeon)"
"""How the products begin that torch has as CUDA devices."""
ALLOCATOR = "cuda allocator"
"""How the peak memory of a CUDA device is taken."""
_BYTES = 4
"""Of a parameter: models are float32, whatever the precision that they are run in."""


def efficiency(case: Case) -> Iterator[Remark]:
    """Costs that no model could have; whether possible ones are true is not to be seen."""
    cost = case.record.efficiency
    if cost is None:
        return
    ran = case.spec.settings.image_size, case.spec.precision
    if (cost.image_size, cost.precision) != ran:
        yield finding("costs of another input", ran, (cost.image_size, cost.precision))
    yield from _device(case, cost)
    yield from _possible(cost)
    yield from _parameters(case, cost)
    yield not_checked(
        "latency and memory: only what is impossible is seen; they would have to be taken again"
    )


def _device(case: Case, cost: Efficiency) -> Iterator[Remark]:
    """Costs are taken where the run was, whose name tells a CUDA device from a processor."""
    ran, text = case.record.environment.get("device"), "costs of another device than the run's"
    allocator = cost.versions.get("peak_memory") == ALLOCATOR
    if ran in HOSTS and (re.match(CUDA, cost.device) or allocator):
        yield finding(text, f"a processor, as it ran on {ran!r}", cost.device)
    elif ran not in HOSTS and cost.device != ran:
        yield finding(text, ran, cost.device)


def _possible(cost: Efficiency) -> Iterator[Remark]:
    for time in cost.latency:
        if not 0 < time.median_ms <= time.p95_ms < math.inf:
            text = f"latency at batch {time.batch_size} is impossible"
            found = f"median {time.median_ms}, p95 {time.p95_ms}"
            yield finding(text, "0 < median <= p95", found)
            continue
        speed = 1000 * time.batch_size / time.median_ms
        if not math.isclose(time.images_per_second, speed, rel_tol=1e-6):
            text = f"images a second at batch {time.batch_size} do not follow from the median"
            yield finding(text, f"{speed:.4f}", time.images_per_second)


def _parameters(case: Case, cost: Efficiency) -> Iterator[Remark]:
    settings, labels = case.spec.settings, len(case.record.label_names)
    if not (_ours("head", settings.head) and _ours("backbone", settings.backbone)):
        yield not_checked("numbers of parameters, of plugins that are not mlbench's own")
        return
    if cost.parameters_head < labels:
        text = f"{settings.head} learns at least one number a label"
        yield finding(text, f"at least {labels} parameters", cost.parameters_head)
    weights = _BYTES * (cost.parameters_backbone + cost.parameters_head) / 2**20
    if not cost.peak_memory_mb >= weights * (1 - 1e-9):
        text = "peak memory is less than the parameters take"
        yield finding(text, f"at least {weights:.1f} MiB", f"{cost.peak_memory_mb:.1f} MiB")


def _ours(kind: registry.Kind, name: str) -> bool:
    try:
        return registry.find(kind, name).distribution == OURS
    except PluginError:
        return False


def plugins(case: Case) -> Iterator[Remark]:
    """The plugins that took part are those of the settings, and of whom they can be."""
    spec, said = case.spec, case.record.environment.get("plugins")
    used: tuple[tuple[registry.Kind, str], ...] = (
        ("backbone", spec.settings.backbone),
        ("head", spec.settings.head),
        ("loss", spec.settings.loss),
        ("dataset", spec.dataset),
    )
    names = {f"{kind} {name.partition(':')[0]}": (kind, name) for kind, name in used}
    if not isinstance(said, Mapping) or sorted(said) != sorted(names):
        found = sorted(said) if isinstance(said, Mapping) else said
        yield finding("other plugins took part than the settings name", sorted(names), found)
        return
    for label, (kind, name) in names.items():
        yield from _whose(kind, name, str(said[label]))


def _whose(kind: registry.Kind, name: str, said: str) -> Iterator[Remark]:
    try:
        plugin = registry.find(kind, name)
    except PluginError:
        yield warning(
            f"{kind} {name!r} of {said!r} is not installed here: nothing of it could be checked"
        )
        return
    distribution, _, version = said.rpartition(" ")
    if distribution == plugin.distribution and re.fullmatch(r"\d[\w.+!-]*", version):
        return
    text = f"{kind} {name!r} is said to be of another distribution"
    expected = f"{plugin.distribution} {plugin.version}"
    if plugin.distribution == OURS:  # no other can be installed beside it under this name
        yield finding(text, expected, said)
    else:
        yield warning(f"{text}: {said!r}, and here it is of {expected}; nothing could be checked")
