"""The cache of decoded images: the same pixels, decoded once, whatever happens to the files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlbench.data import image_cache
from mlbench.data.image_cache import cached_images
from mlbench.data.loader import ImageSource
from mlbench.data.transforms import train_transform
from mlbench.types import DataError, Index, Places
from tests.data.test_transforms import settings

RECIPES = {
    "no augmentation": [],
    "flip": [("flip", {})],
    "resize": [("resize", {}), ("flip", {})],
    "random_resized_crop": [("random_resized_crop", {})],
    "flip and crop": [("flip", {}), ("random_choice_crop", {"resize": 40, "sizes": (36, 32)})],
    "multi_scale_crop": [("multi_scale_crop", {})],
    "squash and multi_scale_crop": [("multi_scale_crop", {"resize": 40})],
    "random_choice_crop": [("random_choice_crop", {"resize": 40, "sizes": (36, 32)})],
}
EVERY = np.arange(4)


@pytest.fixture
def index(tmp_path):
    rng, files = np.random.default_rng(0), [tmp_path / f"{i}.jpg" for i in range(4)]
    for file, (width, height) in zip(files, [(50, 37), (37, 50), (9, 64), (40, 40)], strict=True):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file)
    return Index(files, [file.stem for file in files], np.ones((4, 2), np.int8))


def source(folder, index, name, decoder="turbo", *, cached=True):
    chosen = settings(*RECIPES[name], resize=40, decoder=decoder)
    read, transform = None, train_transform(chosen)
    if cached:
        places = Places(results=folder, cache=folder / "cache", image_cache=True)
        read = cached_images(places, "a set at 32", index, transform, "")
    return ImageSource(index, transform, 1, 2, read=read)


@pytest.mark.parametrize("decoder", ["turbo", "pillow"])
@pytest.mark.parametrize("name", RECIPES)
def test_pixels_are_the_same_with_and_without_the_cache(tmp_path, index, name, decoder):
    plain = source(tmp_path, index, name, decoder, cached=False)
    cached = source(tmp_path, index, name, decoder)
    for epoch in (0, 1, 2):
        assert torch.equal(cached(EVERY, epoch), plain(EVERY, epoch))


@pytest.mark.parametrize("name", ["resize", "random_resized_crop"])
def test_an_image_is_decoded_once_by_all_runs(tmp_path, index, name, monkeypatch):
    decoded: list[Path] = []

    def spy(file, decoder):
        decoded.append(file)
        return load(file, decoder)

    load = image_cache.load
    monkeypatch.setattr(image_cache, "load", spy)
    for _ in range(2):
        images = source(tmp_path, index, name)
        images(EVERY[::2], 0)
        images(EVERY, 1)
    assert sorted(decoded) == sorted(index.files)


def test_what_is_kept_depends_on_decoder_and_size(tmp_path, index):
    for name, decoder in [("resize", "turbo"), ("resize", "pillow"), ("multi_scale_crop", "turbo")]:
        source(tmp_path, index, name, decoder)(EVERY, 0)
    assert len(list((tmp_path / "cache").rglob("images.rows"))) == 3


def test_too_small_a_disk_is_named_before_anything_is_decoded(tmp_path, index, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 99}))
    with pytest.raises(DataError, match=r"MiB free; make room, .* without --set image_cache"):
        source(tmp_path, index, "resize")
