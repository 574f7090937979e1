"""The origin of a record: code, machine, and the time and resources of each phase."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mlbench import registry
from mlbench.engine.cost import restart_peak, status_bytes
from mlbench.engine.distributed import World
from mlbench.numbers import numbers_of, plugins_of, sources_of
from mlbench.types import OLD_AVERAGE, PhaseResources, Progress, RunSpec, Settings

log = logging.getLogger(__name__)


# -------------------------------------------------------------------------------------------- code
def origin(spec: RunSpec) -> dict[str, Any]:
    """The fields of a record that say when, and by which code, a run was made.

    Call this when a run begins: files may change while it trains.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "numbers": numbers_of(spec),
        "sources": sources_of(spec),
        "recipe_rate": _recipe_rate(spec),
    }


def commit() -> str | None:
    """The git commit of the code, with ``-dirty`` if tracked files changed; None outside git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        # Without the lock, which would make a simultaneous commit of the user fail.
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        code = "--untracked-files=no", "--", "mlbench", "plugins", "pyproject.toml"
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", *code) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _recipe_rate(spec: RunSpec) -> bool:
    if "recipe" not in registry.kinds_of(spec.method):
        return False
    tuned = registry.find("recipe", spec.method).load().tuned.get(spec.track, {})
    return bool(tuned.get("optimizer", {}).get("lr") == spec.settings.optimizer.lr)


# ----------------------------------------------------------------------------------------- machine
def environment(device: torch.device, world: World, spec: RunSpec) -> dict[str, Any]:
    """The environment of a run: versions, device, threads, processes, load, and plugins.

    ``load`` is the host's mean number of running processes in the past minute.
    """
    found = plugins_of(spec)
    if "recipe" in registry.kinds_of(spec.method):
        found.append(registry.find("recipe", spec.method))
    cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "platform": platform.system() + " " + platform.machine(),
        "versions": {n: version(n) for n in ("torch", "torchvision", "timm", "numpy", "pillow")},
        "plugins": {f"{p.kind} {p.name}": p.package for p in found},
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        **({"driver": driver(), "cuda": torch.version.cuda} if cuda else {}),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "processes": world.size,
    }


@functools.cache
def _nvml() -> Any:
    """NVIDIA's management library, a part of the driver; None if there is none."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


def driver() -> str | None:
    """The version of NVIDIA's driver; None if there is none."""
    nvml, text = _nvml(), ctypes.create_string_buffer(80)
    failed = nvml is None or nvml.nvmlSystemGetDriverVersion(text, 80)
    return None if failed else text.value.decode()


def joules(device: torch.device) -> float | None:
    """Joules that a device has used since its driver was loaded; None if unknown."""
    nvml = _nvml()
    if nvml is None or not _in_use(device):
        return None
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    if nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
        return None  # part of a device, whose energy is not measured
    failed = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
    return None if failed else millijoules.value / 1000


def _in_use(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_initialized()


# ------------------------------------------------------------------------------------------ phases
@dataclass
class Phases:
    """Announces the phases of a run, and measures each in this process.

    Attributes:
        alone: True if no other run in this process may reset the peaks of memory.
        seconds: phase -> its duration.
        resources: phase -> its memory and energy.
    """

    device: torch.device
    progress: Progress
    alone: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    resources: dict[str, PhaseResources] = field(default_factory=dict)

    @contextmanager
    def __call__(
        self, name: str, spent: float = 0.0, away: Callable[[], float] = float
    ) -> Iterator[None]:
        """Measure a phase; a repeated phase replaces its previous measurement.

        Args:
            name: name of the phase.
            spent: seconds that an earlier process spent on the phase.
            away: returns the seconds in which other runs of this process trained.
        """
        self.progress.phase(name)
        log.info("%s", name)
        started, energy, seen = time.perf_counter(), joules(self.device), False
        with suppress(OSError):
            restart_peak()
            seen = self.alone
        if _in_use(self.device):
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            yield
        finally:  # also if the run diverged
            self.seconds[name] = round(spent + time.perf_counter() - started - away(), 3)
            now, cuda = joules(self.device), self.alone and _in_use(self.device)
            device_peak = torch.cuda.max_memory_allocated(self.device) if cuda else None
            self.resources[name] = PhaseResources(
                memory_mb=_mib(status_bytes("VmHWM")) if seen else None,
                device_memory_mb=None if device_peak is None else _mib(device_peak),
                joules=None if energy is None or now is None else round(now - energy, 1),
            )


def _mib(size: int) -> float:
    return round(size / 2**20, 1)


# ----------------------------------------------------------------------------------------- remarks
def remarks_on_epoch(
    settings: Settings, selected: int | None, trained: int, images: int
) -> Iterator[str]:
    """Notes on the scored weights; ``selected`` is the chosen epoch, None for the last."""
    if selected is not None and settings.selection == "test":
        yield (
            f"epoch {selected} of {trained} was selected on the test split, as the "
            "best of them there: its score is higher than on images that nothing was chosen by"
        )
    share = settings.first_weights_share(images, selected or trained)
    if share > OLD_AVERAGE:
        yield (
            f"{share:.0%} of the moving average that was scored still are the weights after step "
            "1; train for longer, or set ema_warmup=true or a smaller ema_decay"
        )
