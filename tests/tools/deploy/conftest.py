import pytest

import mlbench
from tests.tools.weights.released import FEW


@pytest.fixture(scope="session")
def trained(tmp_path_factory, cache):
    """The folder of a run of gap on a few synthetic images."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {"epochs": 1, "image_size": 32}
    fields = {"settings": settings, "dataset_options": FEW, "device": "cpu"}
    table = mlbench.run(["gap"], results=folder, cache=cache, **fields)
    return folder / "runs" / table["run_id"][0]
