"""Time images from files to batches: ``pytest -n 0 benchmarks/test_data.py``.

JPEGs of 640 x 480 and about 57 KB, to 448 x 448 in bilinear interpolation, on two threads. The ways
take turns, so that a busy machine slows all of them; compare the ratios that are printed with -s.
"""

import os
import time
from statistics import median, quantiles

import numpy as np
import pytest
import torch
from PIL import Image

from mlbench.data.decode import load
from mlbench.data.image_cache import cached_images
from mlbench.data.loader import ImageSource
from mlbench.data.transforms import make_view, square_side, train_transform
from mlbench.types import Augmentation, Index, Places, Settings

THREADS, IMAGES, ROUNDS = 2, 64, 9
RECIPES = {
    "controlled": [("random_resized_crop", {"scale": (0.7, 1.0)}), ("flip", {})],
    "multi-scale crop": [("multi_scale_crop", {}), ("flip", {})],
    "RandAugment": [("resize", {}), ("rand_augment", {})],
}


def write_jpegs(folder, images=IMAGES):
    """Photograph-like files: waves of three colours under noise."""
    y, x = np.mgrid[0:480, 0:640]
    for i in range(images):
        rng = np.random.default_rng(i)
        a, b = rng.uniform(8, 40, 2)
        waves = [(np.sin(x / a + c) + np.cos(y * (c + 1) / b) + 2) * 60 for c in range(3)]
        noisy = np.stack(waves, -1) + rng.normal(0, 6, (480, 640, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg", quality=85)
    files = sorted(folder.glob("*.jpg"))
    return Index(files, [file.stem for file in files], np.ones((images, 2), np.int8))


def source(index, steps, threads, decoder="turbo", places=None, **more):
    """Training images of a recipe; from the cache, if its place is given."""
    chosen = Settings(
        head="gap",
        decoder=decoder,
        image_size=more.pop("size", 448),
        augmentation=tuple(Augmentation(name=name, options=options) for name, options in steps),
    )
    if places is not None:
        side = square_side(chosen, training=True)
        view, files = make_view(chosen), {"images": len(index)}
        more["read"] = cached_images(places, "benchmark", index, view, side, files)
    return ImageSource(index, train_transform(chosen), 0, threads, decoder, **more)


def pillows_way(image, rng):
    """What was done before there were decoders: Pillow's crop and resize in one, then a flip."""
    side = int(min(image.size) * rng.uniform(0.84, 1))
    left, top = (int(rng.integers(free - side + 1)) for free in image.size)
    box = (left, top, left + side, top + side)
    image = image.resize((448, 448), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def in_threads(images, index, call):
    """Call a function for every image, in the threads of a source."""
    list(images.pool.map(call, index.files))


@pytest.mark.parametrize("name", RECIPES)
def test_images_per_second(name, tmp_path, benchmark):
    index, every = write_jpegs(tmp_path), np.arange(IMAGES)
    places = Places(results=tmp_path, cache=tmp_path / "cache")
    ways = {w: source(index, RECIPES[name], THREADS, w) for w in ("turbo", "pillow")}
    ways["cache"] = source(index, RECIPES[name], THREADS, places=places)
    calls = {way: lambda images=images: images(every, 0) for way, images in ways.items()}
    pool = ways["turbo"]

    def before(file):
        with Image.open(file) as image:
            pillows_way(image.convert("RGB"), np.random.default_rng(0))

    calls["Pillow alone"] = lambda: in_threads(pool, index, before)
    calls["decode alone"] = lambda: in_threads(pool, index, load)
    seconds = {way: [] for way in calls}
    used = {way: [] for way in calls}
    for _ in range(ROUNDS):
        for way, call in calls.items():
            started, cpu = time.perf_counter(), time.process_time()
            call()
            seconds[way].append(time.perf_counter() - started)
            used[way].append(time.process_time() - cpu)
    print(f"\n{name}, {THREADS} threads of {os.cpu_count()} cores")
    print("way           images/s   spread  a CPU second  x pillow")
    for way in calls:
        low, middle, high = quantiles(seconds[way], n=4)
        print(
            f"{way:13} {IMAGES / middle:8.0f} {(high - low) / middle:8.0%} "
            f"{IMAGES / median(used[way]):13.0f} {median(used['pillow']) / median(used[way]):9.2f}"
        )
    benchmark.extra_info["turbo / pillow"] = median(used["pillow"]) / median(used["turbo"])
    benchmark.pedantic(calls["turbo"], rounds=1)
    if name != "RandAugment":  # equalize may turn one grey level into many
        difference = ways["turbo"](every, 0).int() - ways["pillow"](every, 0).int()
        assert difference.abs().max() <= 1
    assert torch.equal(ways["turbo"](every, 0), ways["cache"](every, 0))
