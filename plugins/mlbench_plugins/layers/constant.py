"""Results that depend on no image: computed for each batch in training, once for evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from mlbench_plugins.layers.numerics import without_autocast


class ConstantInEvaluation(nn.Module, ABC):
    """A function of parameters and buffers alone, computed in training and constant in evaluation.

    ``eval()`` computes the constant, and so does loading a state dict in evaluation mode. After
    writing to the parameters of a module in evaluation mode by other means, or casting them to a
    higher precision, call ``eval()`` again.
    The constant has no gradient. It is a buffer outside the state dict: it moves with the module
    and is exported as a number.

    Args:
        shape: shape of the result.
    """

    constant: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("constant", torch.zeros(shape), persistent=False)
        self.register_load_state_dict_post_hook(_renew)  # type: ignore[no-untyped-call]

    @abstractmethod
    def compute(self) -> Tensor:
        """The result, with its gradient."""

    def forward(self) -> Tensor:
        """The result in training, the constant in evaluation."""
        return self.compute() if self.training else self.constant

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; evaluation renews the constant."""
        super().train(mode)
        _renew(self)
        return self


# Not a method: deepcopy would leave a bound method bound to the original module.
def _renew(module: ConstantInEvaluation, _: object = None) -> None:
    if not module.training:
        with torch.no_grad(), without_autocast(module.constant.device.type):
            module.constant = module.compute()
