"""What depends on no image is computed for every batch in training, and once for evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn


class ConstantInEvaluation(nn.Module, ABC):
    """A module without inputs: of its parameters and buffers in training, a constant afterwards.

    The constant is made by ``eval()`` and, in evaluation mode, by loading a state dict; no gradient
    passes it. Whoever writes to the parameters of a module in evaluation mode by other means calls
    ``eval()`` again. It is a buffer, so it moves with the module and is exported as a number, but
    not part of the state dict, as the parameters are.

    Args:
        shape: of the result.
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


# A function, not a bound method, which deepcopy would leave bound to the module it came from.
def _renew(module: ConstantInEvaluation, _: object = None) -> None:
    if not module.training:
        with torch.no_grad():
            module.constant = module.compute()
