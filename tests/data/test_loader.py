"""Batches of images: equal whatever makes or keeps them, in order, and on the device."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlbench.data import image_cache, loader
from mlbench.data.decode import load
from mlbench.data.image_cache import cached_images
from mlbench.data.loader import ImageSource, batches
from mlbench.data.transforms import train_transform
from mlbench.types import DataError, Index, Places
from tests.data.test_transforms import settings

STEPS = [("random_resized_crop", {}), ("flip", {}), ("rand_augment", {}), ("cutout", {})]
EVERY = np.arange(7)
CUDA = torch.device("cuda")


@pytest.fixture
def index(tmp_path):
    """Smooth pictures: five JPEGs, one of them grey and one turned, and two PNGs."""
    files = []
    for i in range(7):
        y, x = np.mgrid[0 : 120 + 9 * i, 0:150]
        rows = [128 + 100 * np.sin((x * (c + 1) + y * i) / 40) for c in range(3)]
        picture = Image.fromarray(np.stack(rows, -1).astype(np.uint8))
        files.append(tmp_path / f"{i}.{'png' if i > 4 else 'jpg'}")
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 1 else 1
        picture.convert("L" if i == 0 else "RGB").save(files[-1], exif=exif)
    return Index(files, [file.stem for file in files], np.eye(7, 3, dtype=np.int8))


def source(index, workers=2, steps=STEPS, decoder="turbo", seed=3, **more):
    chosen = settings(*steps, size=64, decoder=decoder)
    return ImageSource(index, train_transform(chosen), seed, workers, **more)


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_a_batch_depends_on_seed_epoch_and_position_alone(index, workers):
    images = source(index, workers)
    together = images(EVERY, 1)
    assert together.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(together, torch.cat([images(part, 1) for part in (EVERY[:3], EVERY[3:])]))
    assert torch.equal(together, source(index, 1)(EVERY, 1))
    assert not torch.equal(together, images(EVERY, 2))
    assert not torch.equal(together, source(index, seed=4)(EVERY, 1))


def test_decoding_threads_start_no_threads_and_leave_those_of_the_caller(index):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        images = source(index, 3)
        assert {images.pool.submit(torch.get_num_threads).result() for _ in range(20)} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_batches_come_in_order_with_their_targets(index):
    order = [EVERY[4:6], EVERY[:1], EVERY[2:4], EVERY[6:], EVERY[1:3]]
    images = source(index)
    todo = iter(order)
    next(batches(images, index, todo))
    assert len([*todo]) == 2, "two are made in the background"
    made = list(batches(images, index, order, epoch=2))
    assert [batch.positions.tolist() for batch in made] == [one.tolist() for one in order]
    for batch in made:
        assert torch.equal(batch.inputs, images(batch.positions, 2))
        assert batch.targets.tolist() == index.targets[batch.positions].tolist()


def test_what_nvjpeg_does_not_take_is_decoded_by_the_workers(index, monkeypatch):
    threads, asked = [], []

    def seen(file, *decoder):
        asked.extend(decoder)
        threads.append(threading.current_thread().name)
        return load(file, *decoder)

    def stored(device, jpegs):
        assert len(jpegs) == 4, "one is turned, and two are PNGs"
        return [load(index.files[i]) for i in (0, 2, 3, 4)]

    monkeypatch.setattr(loader, "load", seen)
    monkeypatch.setattr(loader, "decode_on", stored)
    ours = source(index, steps=STEPS[:2], decoder="nvjpeg")._on_device(EVERY, 0)
    assert (ours.int() - source(index, steps=STEPS[:2])(EVERY, 0).int()).abs().max() <= 1
    assert len(threads) == 3 + 7 and all(name.startswith("decode") for name in threads)
    source(index, decoder="pillow")(EVERY, 0)
    assert asked == ["turbo"] * 7 + ["pillow"] * 7


def test_all_batches_are_copied_in_one_stream(index, monkeypatch):
    """Memory that the allocator freed is used again in the same stream only."""
    made = []
    monkeypatch.setattr(torch.cuda, "Stream", made.append)  # without one, batches stay here
    elsewhere = torch.device("cuda", 99)
    for epoch in range(2):
        assert len(list(batches(source(index), index, [EVERY], epoch, elsewhere))) == 1
    assert made == [elsewhere]


def test_a_file_that_goes_bad_is_named(index):
    index.files[3].write_bytes(index.files[3].read_bytes()[:99])
    with pytest.raises(DataError, match=r"3\.jpg"):
        list(batches(source(index), index, [EVERY]))


@pytest.mark.gpu
def test_batches_on_the_device_are_those_of_the_host(index):
    torch.zeros(1, device=CUDA)  # batches are pinned once CUDA is in use
    order = [EVERY[4:6], EVERY[:4], EVERY[2:], EVERY] * 5
    images = source(index)
    for batch in batches(images, index, order, device=CUDA):
        assert batch.inputs.is_cuda and batch.targets.is_cuda
        assert torch.equal(batch.inputs.cpu(), images(batch.positions, 0))
        assert batch.targets.tolist() == index.targets[batch.positions].tolist()


@pytest.mark.gpu
def test_nvjpeg_gives_nearly_the_same_batches(index):
    steps = STEPS[:2]  # RandAugment may turn one grey level into many
    ours = source(index, steps=steps, decoder="nvjpeg", device=CUDA)
    for batch in batches(ours, index, [EVERY], device=CUDA):
        difference = (batch.inputs.cpu().int() - source(index, steps=steps)(EVERY, 0).int()).abs()
        assert difference.float().mean() < 1 and difference.max() <= 24
        assert difference[5:].max() <= 1, "PNGs differ by the resize alone"


@pytest.mark.gpu
def test_every_step_runs_on_the_device(index):
    images = source(index, decoder="nvjpeg", device=CUDA)
    for epoch in range(8):
        assert images(EVERY, epoch).shape == (7, 3, 64, 64)


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
FOUR = np.arange(4)


@pytest.fixture
def pictures(tmp_path):
    rng, files = np.random.default_rng(0), [tmp_path / f"{i}.jpg" for i in range(4)]
    for file, (width, height) in zip(files, [(50, 37), (37, 50), (9, 64), (40, 40)], strict=True):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file)
    return Index(files, [file.stem for file in files], np.ones((4, 2), np.int8))


def kept(folder, pictures, name, decoder="turbo", *, cached=True):
    chosen = settings(*RECIPES[name], resize=40, decoder=decoder)
    read, transform = None, train_transform(chosen)
    if cached:
        places = Places(results=folder, cache=folder / "cache", image_cache=True)
        read = cached_images(places, "a set at 32", pictures, transform, "")
    return ImageSource(pictures, transform, 1, 2, read=read)


@pytest.mark.parametrize("decoder", ["turbo", "pillow"])
@pytest.mark.parametrize("name", RECIPES)
def test_pixels_are_the_same_with_and_without_the_cache(tmp_path, pictures, name, decoder):
    plain = kept(tmp_path, pictures, name, decoder, cached=False)
    cached = kept(tmp_path, pictures, name, decoder)
    for epoch in (0, 1, 2):
        assert torch.equal(cached(FOUR, epoch), plain(FOUR, epoch))


@pytest.mark.parametrize("name", ["resize", "random_resized_crop"])
def test_an_image_is_decoded_once_by_all_runs(tmp_path, pictures, name, monkeypatch):
    decoded: list[Path] = []

    def spy(file, decoder):
        decoded.append(file)
        return load(file, decoder)

    load = image_cache.load
    monkeypatch.setattr(image_cache, "load", spy)
    for _ in range(2):
        images = kept(tmp_path, pictures, name)
        images(FOUR[::2], 0)
        images(FOUR, 1)
    assert sorted(decoded) == sorted(pictures.files)


def test_what_is_kept_depends_on_decoder_and_size(tmp_path, pictures):
    for name, decoder in [("resize", "turbo"), ("resize", "pillow"), ("multi_scale_crop", "turbo")]:
        kept(tmp_path, pictures, name, decoder)(FOUR, 0)
    assert len(list((tmp_path / "cache").rglob("images.rows"))) == 3


def test_too_small_a_disk_is_named_before_anything_is_decoded(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 99}))
    with pytest.raises(DataError, match=r"MiB free; make room, .* without --set image_cache"):
        kept(tmp_path, pictures, "resize")
