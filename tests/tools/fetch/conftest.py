import pytest

from mlbench_tools.fetch import download
from tests.tools.fetch.served import served


@pytest.fixture
def site(monkeypatch):
    """A web server that a download does not wait for."""
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with served() as site:
        yield site
