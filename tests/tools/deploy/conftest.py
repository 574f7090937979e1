import pytest

import mlbench
from tests.tools.weights.released import FEW


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, cache):
    """Run a method on a few synthetic images; the folder of the run."""

    def call(method="gap", settings=(), **fields):
        folder = tmp_path_factory.mktemp("small")
        fields = {"dataset_options": FEW, "device": "cpu", "cache": cache, **fields}
        fields["settings"] = {"epochs": 1, "image_size": 32, **dict(settings)}
        return folder / "runs" / mlbench.run([method], results=folder, **fields)["run_id"][0]

    return call


@pytest.fixture(scope="session")
def trained(small_run):
    """The folder of a run of gap."""
    return small_run()
