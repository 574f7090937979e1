"""What a run ran on, for its record."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mlbench import registry
from mlbench.engine.distributed import World
from mlbench.types import RunSpec


def environment(device: torch.device, world: World, spec: RunSpec) -> dict[str, Any]:
    """What the run ran on: versions, device, threads, processes, and whose plugins took part."""
    settings = spec.settings
    used: tuple[tuple[registry.Kind, str], ...] = (
        ("backbone", settings.backbone),
        ("head", settings.head),
        ("loss", settings.loss),
        ("dataset", spec.dataset),
    )
    found = [registry.find(kind, name) for kind, name in used]
    cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "platform": platform.system() + " " + platform.machine(),
        "versions": {n: version(n) for n in ("torch", "torchvision", "timm", "numpy", "pillow")},
        "plugins": {f"{p.kind} {p.name}": f"{p.distribution} {p.version}" for p in found},
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": world.size,
    }


def commit() -> str | None:
    """The git commit of the code, with ``-dirty`` if it was changed; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "mlbench", "plugins", "pyproject.toml")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
