"""Fixtures of the command line that executors are tested with."""

from tests.cli.conftest import suite  # noqa: F401 - a fixture
