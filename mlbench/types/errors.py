"""Errors that a user can mend."""

from __future__ import annotations


class MlbenchError(Exception):
    """Something a user can mend; its text says what was wrong, where, and what to do."""


class PluginError(MlbenchError):
    """A plugin is unknown, broken, in conflict with another, or cannot serve a case."""


class DataError(MlbenchError):
    """A data set's files are missing, malformed or not what they should be."""


class SuiteError(MlbenchError):
    """The matrix that was asked for makes no sense."""


class WeightsError(MlbenchError):
    """Weights are missing or do not fit the model."""


class StoreError(MlbenchError):
    """A result could not be written or read."""


class PackError(MlbenchError):
    """A submitted result is no pack, is damaged, or could not be made."""


class MeasureError(MlbenchError):
    """A measurement would have been wrong, so none is given."""


class DivergedError(MlbenchError):
    """The training loss stopped being finite."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(step, value)  # what it is made of again in another process
        self.step, self.value = step, value

    def __str__(self) -> str:
        return (
            f"the training loss became {self.value} at step {self.step}; "
            "try a lower learning rate, gradient clipping, or another precision"
        )
