"""Fixtures of the command line that executors are tested with."""

import logging

import pytest

from tests.cli.conftest import suite  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def level_of_the_log():
    """A run in this process sets the level of mlbench's log, which later tests count on."""
    yield
    logging.getLogger("mlbench").setLevel(logging.NOTSET)
