"""Images from files to batches beside what authors' loaders do, on one thread, to 448 x 448.

Processor time counts, which shows what a thread is worth and not how threads get in each other's
way: ``benchmarks/gpu.py --only data`` has the images/s of 1, 8 and 16 threads.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as vision

from mlbench.data.decode import load
from mlbench.data.image_cache import cached_images
from mlbench.data.loader import ImageSource
from mlbench.data.transforms import train_transform
from mlbench.types import Augmentation, Index, Places, Settings

IMAGES = 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = {  # width, height, noise, quality: 158 KB and 37 KB
    "COCO originals": (640, 480, 12, 93),
    "small JPEGs": (500, 375, 6, 82),
}
RECIPES = {
    "controlled": [("random_resized_crop", {"scale": (0.7, 1.0)}), ("flip", {})],
    "multi-scale crop": [("multi_scale_crop", {}), ("flip", {})],
    "RandAugment": [("resize", {}), ("rand_augment", {})],
}


def write_jpegs(folder, images=IMAGES, width=640, height=480, noise=6, quality=85):
    """Photograph-like files: waves of three colours under noise."""
    y, x = np.mgrid[0:height, 0:width]
    for i in range(images):
        rng = np.random.default_rng(i)
        a, b = rng.uniform(8, 40, 2)
        waves = [(np.sin(x / a + c) + np.cos(y * (c + 1) / b) + 2) * 60 for c in range(3)]
        noisy = np.stack(waves, -1) + rng.normal(0, noise, (height, width, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
            folder / f"{i}.jpg", quality=quality
        )
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
        files = str(len(index))
        more["read"] = cached_images(places, "benchmark", index, train_transform(chosen), files)
    return ImageSource(index, train_transform(chosen), 0, threads, **more)


def authors_way(file, rng, steps):
    """Pillow, a crop or none, a resize, a flip, ToTensor and Normalize: float32 [3, 448, 448]."""
    with Image.open(file) as image:
        image = image.convert("RGB")
    if steps:
        side = int(min(image.size) * rng.uniform(0.84, 1))
        left, top = (int(rng.integers(free - side + 1)) for free in image.size)
        image = image.crop((left, top, left + side, top + side))
    image = image.resize((448, 448), Image.Resampling.BILINEAR)
    if steps and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tensor = vision.to_dtype(vision.pil_to_tensor(image), torch.float32, scale=True)
    return vision.normalize(tensor, MEAN, STD)


def plain_batch(index, steps=()):
    rng = np.random.default_rng(0)
    return lambda: torch.stack([authors_way(file, rng, steps) for file in index.files])


def decoding(index):
    return "decoding", lambda: [load(file) for file in index.files], 1


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["controlled", "multi-scale crop"])
def test_loading(beside, name, kind, tmp_path):
    """Images a second of the loader, augmentation included; normalisation is the model's."""
    index = write_jpegs(tmp_path, IMAGES, *FILES[kind])
    steps, every = RECIPES[name], np.arange(IMAGES)
    ways = {decoder: source(index, steps, 1, decoder) for decoder in ("turbo", "pillow")}
    off = (ways["turbo"](every, 0).int() - ways["pillow"](every, 0).int()).abs().max() / 255
    beside(
        f"{kind}, {name}, beside Pillow, ToTensor and Normalize",
        plain_batch(index, steps),
        lambda: ways["turbo"](every, 0),
        goal=2.5 if kind == "COCO originals" else 4,
        roof=decoding(index),
        error=off.item(),
    )
    assert off * 255 <= 1


def test_decoders(beside, tmp_path):
    """The same batches by the decoder that is the reference."""
    index, every = write_jpegs(tmp_path, IMAGES, *FILES["COCO originals"]), np.arange(IMAGES)
    turbo, pillow = (source(index, RECIPES["controlled"], 1, way) for way in ("turbo", "pillow"))
    beside(
        "COCO originals, controlled, beside decoder=pillow",
        lambda: pillow(every, 0),
        lambda: turbo(every, 0),
        goal=2.5,
        roof=decoding(index),
    )


def test_image_cache(beside, tmp_path):
    index, every = write_jpegs(tmp_path, IMAGES, *FILES["COCO originals"]), np.arange(IMAGES)
    places = Places(results=tmp_path, cache=tmp_path / "cache")
    cached = source(index, [("resize", {})], 1, places=places)
    want = source(index, [("resize", {})], 1)(every, 0)
    a, b = torch.empty(2, *want.shape, dtype=torch.uint8)
    beside(
        "squares of 448 from the image cache, beside Pillow, ToTensor and Normalize",
        plain_batch(index),
        lambda: cached(every, 0),
        goal=50,
        roof=("copying", lambda: [a.copy_(b) for _ in range(8)], 1 / 8),
        calls=8,
        error=float(not torch.equal(cached(every, 0), want)),
    )
