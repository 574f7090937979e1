"""The class of all frozen values, and constrained types of their fields."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat


class Value(BaseModel):
    """A frozen value; an unknown field is an error."""

    # JSON has no infinity: as null, an infinite gradient norm could not be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def _check_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
"""Seconds, GMACs, MiB: finite, never negative."""
Time = Annotated[str, AfterValidator(_check_time)]
"""A date and time in ISO 8601."""
