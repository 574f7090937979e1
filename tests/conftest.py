"""What several tests need: the command line in this process, a shared cache, a tiny model."""

import gc
import json
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tests.given import path_of


def pytest_configure(config):
    """Hide the GPU from tests that do not ask for one: their numbers are the CPU's."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["TRITON_INTERPRET"] = "1"
    # The workers share the cores: with more threads than these they wait for each other.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Read when the command line is imported: tables must not wrap by who runs the tests.
    os.environ["COLUMNS"] = "200"
    settings.register_profile("busy machines", deadline=None)
    settings.load_profile("busy machines")
    gc.disable()  # takes a second of the imports and frees little


def pytest_collection_finish():
    """Collect garbage from here on, among what the tests make."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():
    gc.unfreeze()  # Python's end takes everything down as usual


class Finished(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def ok(self, *printed):
        """The same command, which must have succeeded and printed these texts."""
        assert self.code == 0, self
        assert all(text in self.out for text in printed), self
        return self

    def failed(self, *said, code=2):
        """The same command, which must have ended with this code and an error of these texts."""
        error = self.err, " ".join(self.err.split())  # as printed, and without line breaks
        assert self.code == code and all(any(text in one for one in error) for text in said), self
        return self

    @property
    def json(self):
        """What it printed, read as JSON, in which there is no NaN."""
        return json.loads(self.out, parse_constant=pytest.fail)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache for all tests, so that the synthetic images are drawn once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path, cache):
    """Run ``mlbench`` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLBENCH_CACHE", str(cache))
    monkeypatch.delenv("MLBENCH_DATA", raising=False)

    def call(*arguments):
        from mlbench.cli import main

        monkeypatch.setattr(sys, "argv", ["mlbench", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return Finished(code, out, err)

    return call


@pytest.fixture
def begin(tmp_path, cache):
    """Start ``mlbench`` in a process of its own, in an empty folder; its output has its errors."""

    def call(*arguments, stderr=subprocess.STDOUT, **more):
        environment = os.environ | {"MLBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mlbench", *map(str, arguments)]
        more |= {"stdout": subprocess.PIPE, "stderr": stderr, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **more)

    return call


@pytest.fixture
def apart(begin):
    """Run ``mlbench`` in a process of its own to its end."""

    def call(*arguments):
        with begin(*arguments, stderr=subprocess.PIPE) as going:
            out, err = going.communicate()
        return Finished(going.returncode, out, err)

    return call


@pytest.fixture
def store(tmp_path):
    """An empty store, where commands look for one by default."""
    from mlbench.store import Store

    return Store(tmp_path / "results")


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Install a distribution of one module, with entry points, for the length of a test."""

    def make(distribution, source, entry_points):
        folder = tmp_path / f"site-{distribution}"
        metadata = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir(parents=True)
        about = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        (metadata / "METADATA").write_text(about)
        (metadata / "entry_points.txt").write_text(entry_points)
        module = folder / f"{distribution.replace('-', '_')}.py"
        module.write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        monkeypatch.setenv("PYTHONPATH", path)
        return module

    return make


@pytest.fixture(scope="session")
def real_data():
    """The folder of real images."""
    return path_of("DATA", "folder with VOCdevkit/ and coco-mini/")


@pytest.fixture
def pictures(tmp_path):
    """Pictures of several kinds; 5.jpg is cut short and 6.png is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, mode in enumerate(["RGB", "L", "CMYK", "RGBA", "P"]):
        noise = rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
        ending = "png" if mode in ("RGBA", "P") else "jpg"
        Image.fromarray(noise).convert(mode).save(folder / f"{i}.{ending}")
    (folder / "5.jpg").write_bytes((folder / "0.jpg").read_bytes()[:300])
    (folder / "6.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("no picture")
    return folder
