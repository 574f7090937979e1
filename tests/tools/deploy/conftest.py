import numpy as np
import pytest
from PIL import Image

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
