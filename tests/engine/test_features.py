import numpy as np
import pytest
import torch

from mlbench.engine.distributed import World
from mlbench.engine.features import FeatureCache, cache_key
from mlbench.engine.model import MultiLabelModel
from mlbench.types import Index, MeasureError
from tests.engine import tiny


@pytest.fixture
def data(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for i, file in enumerate(files):
        file.write_bytes(bytes(i))
    return Index(files, [f.stem for f in files], np.ones((5, 3), np.int8))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=generator)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("mlbench.engine.features.BATCH", 2)


def source(folder, data, images, model=None):
    pixels = tiny.Pixels(images) if isinstance(images, torch.Tensor) else images
    identity = {"backbone": "tiny"}
    cache = FeatureCache(folder, model or tiny.model(), identity, World(), tiny.Quiet())
    return cache.source("train", data, pixels)


def test_maps_are_the_backbones_in_half_precision(tmp_path, data, images):
    maps = source(tmp_path, data, images)(np.array([3, 1]), 0)
    with torch.no_grad():
        expected = tiny.model().eval().features(images[[3, 1]])
    assert len(maps) == 2 and all(m.dtype == torch.float16 for m in maps)
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found.float(), wanted, atol=1e-3, rtol=1e-3)


def test_maps_are_made_once_for_everyone(tmp_path, data, images):
    calls = []

    class Counted(MultiLabelModel):
        def features(self, batch):
            calls.append(len(batch))
            return super().features(batch)

    model = Counted(tiny.Backbone(), tiny.Head(), tiny.Backbone.mean, tiny.Backbone.std)
    for _ in range(3):
        source(tmp_path, data, images, model=model)
    assert calls == [2, 2, 1]


def test_everything_that_changes_maps_changes_the_key(data, tmp_path):
    import os

    keys = {cache_key(data, {"image_size": 16}), cache_key(data, {"image_size": 32})}
    other = Index(data.files, ["x", *data.keys[1:]], data.targets)
    keys.add(cache_key(other, {"image_size": 16}))
    os.utime(data.files[0], ns=(1, 1))
    keys.add(cache_key(data, {"image_size": 16}))
    data.files[0].write_bytes(b"longer")
    os.utime(data.files[0], ns=(1, 1))
    keys.add(cache_key(data, {"image_size": 16}))
    assert len(keys) == 5


def test_nothing_half_made_is_left_behind(tmp_path, data, images):
    class Failing(tiny.Pixels):
        def __call__(self, positions, epoch):
            if 4 in positions:
                raise RuntimeError("power cut")
            return super().__call__(positions, epoch)

    with pytest.raises(RuntimeError, match="power cut"):
        source(tmp_path / "cache", data, Failing(images))
    assert not list((tmp_path / "cache" / "features").iterdir())


def test_maps_beyond_half_precision_are_an_error(tmp_path, data, images):
    model = tiny.model()
    with torch.no_grad():
        model.backbone.two[1].weight.fill_(1e9)
    with pytest.raises(MeasureError, match="half precision"):
        source(tmp_path / "cache", data, images, model=model)
