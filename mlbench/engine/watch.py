"""What the steps of an epoch found, looked at now and then: a look waits for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mlbench.engine.distributed import World
from mlbench.types import DivergedError


class Watch:
    """Losses and norms of the steps since the last look, left on the device until then.

    Args:
        losses: the loss of every step of the run so far, added to at every look.
        world: the processes that hold parts of each loss.
    """

    def __init__(self, losses: list[float], world: World) -> None:
        self.losses, self.world = losses, world
        self.pending: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.extra: dict[str, list[Tensor]] = {}
        self.largest_norm = 0.0

    def note(self, loss: Tensor, extra: Mapping[str, Tensor], norm: Tensor) -> None:
        """What a step found: its loss on this process, losses in it by name, gradient norm."""
        self.pending.append(loss.detach().float())
        self.norms.append(norm)
        for name, value in extra.items():
            self.extra.setdefault(name, []).append(value.detach().float())

    def look(self) -> None:
        """Bring the losses over; stop on every process at the first that is not finite.

        Raises:
            DivergedError: the loss of a step was not finite.
        """
        before = len(self.losses)
        losses = self.world.mean(torch.stack(self.pending)).tolist()
        norms = torch.stack(self.norms)
        # The scaler skips steps whose gradients overflow; their norm says nothing.
        self.largest_norm = max(self.largest_norm, *norms[norms.isfinite()].tolist(), 0.0)
        self.pending, self.norms = [], []
        self.losses.extend(losses)
        for i, value in enumerate(losses):
            if not torch.isfinite(torch.tensor(value)):
                raise DivergedError(before + i + 1, value)

    def means(self) -> dict[str, float]:
        """The mean over the steps and the processes of every loss that has a name."""
        if not self.extra:
            return {}
        names = sorted(self.extra)  # one order on every process
        means = torch.stack([torch.stack(self.extra[name]).mean() for name in names])
        return dict(zip(names, self.world.mean(means).tolist(), strict=True))
