"""A suite of runs small enough to train in a test."""

from importlib import import_module

import pytest
import yaml

from mlbench.cli import matrix, planning

SUITE = {
    "plugins": ["gap"],
    "seeds": [0],
    "measure": False,
    "dataset_options": {"synthetic": {"train_images": 64, "test_images": 31, "size": 32}},
    "settings": {"image_size": 32, "epochs": 1, "batch_size": 16, "freeze_bn": True},
}


@pytest.fixture
def suite(tmp_path):
    """Write ``SUITE`` with some fields replaced and some settings changed; returns the file."""

    def write(settings=(), **fields):
        content = SUITE | fields | {"settings": SUITE["settings"] | dict(settings)}
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write


@pytest.fixture
def own(tmp_path, cli, monkeypatch):
    """An empty cache of this test's own."""
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def small(suite):
    return suite()


@pytest.fixture
def here(monkeypatch):
    """Plan in this process, and forecast nothing: for tests of neither."""

    def call(function, *args, **_):
        module, _, name = function.partition(":")
        return getattr(import_module(module), name)(*args, lambda *_: None)

    monkeypatch.setattr(planning, "call", call)
    monkeypatch.setattr(matrix, "forecast", lambda _: ({}, []))


@pytest.fixture
def unmeasured(monkeypatch):
    """Call no plugin after a matrix: ``mlbench repeat`` always measures speed, which takes long."""
    monkeypatch.setattr(matrix, "_call_all", lambda *_: [])
