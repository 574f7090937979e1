"""Errors that a user can fix."""

from __future__ import annotations


class MlbenchError(Exception):
    """Something that a user can fix; the message says what is wrong, where, and what to do."""


class PluginError(MlbenchError):
    """A plugin is unknown, broken, in conflict with another, or unfit for this combination."""


class DataError(MlbenchError):
    """Files of a data set are missing, malformed or inconsistent."""


class SuiteError(MlbenchError):
    """The requested matrix is invalid."""


class WeightsError(MlbenchError):
    """Weights are missing or do not fit the model."""


class StoreError(MlbenchError):
    """A result cannot be written or read."""


class PackError(MlbenchError):
    """A submitted result is not a pack, is damaged, or cannot be made."""


class MeasureError(MlbenchError):
    """A measurement would be wrong, so none is given."""


class DivergedError(MlbenchError):
    """The training loss is no longer finite, or the scores after the last step are not."""

    def __init__(self, step: int, value: float, what: str = "training loss") -> None:
        super().__init__(step, value, what)  # unpickling in another process needs the arguments
        self.step, self.value, self.what = step, value, what

    def __str__(self) -> str:
        return (
            f"the {self.what} became {self.value} at step {self.step}; "
            "try a lower learning rate, gradient clipping, or another precision"
        )


class BatchMemoryError(MlbenchError):
    """A batch does not fit into the memory of the device.

    Attributes:
        divisible: True if the run would make the same numbers in micro-batches.
    """

    def __init__(self, text: str, divisible: bool = False) -> None:
        super().__init__(text)
        self.divisible = divisible


class Interrupted(BaseException):
    """A run was asked to stop by the signal of this name. Repeating the command resumes it.

    Like ``KeyboardInterrupt`` it is no ``Exception``, since plugins may catch those as their own.
    """

    def __str__(self) -> str:
        return f"stopped by {self.args[0]}; repeat the command to resume the run"
