"""The section ``data`` of ``gpu.py``: batches on the device, and training from them."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from test_data import RECIPES, source, write_jpegs
from test_train import Quiet

from mlbench.build import build
from mlbench.contracts.made_up import made_up_context
from mlbench.data.loader import batches
from mlbench.engine.distributed import World
from mlbench.engine.train import Training, finish, train
from mlbench.types import Index, Places, Settings

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BATCH, IMAGES = (32, 256) if CUDA else (4, 8)
THREADS = (1, 8, 16) if CUDA else (1, 2)
MODELS = {"resnet101": (448, 32, 95), "resnet50": (448, 64, 95), "mobilenetv2_100": (224, 128, 60)}
"""Image size, batch, and the least share in percent of the GPU's own rate that files should give;
the image cache should give 90."""
if not CUDA:
    MODELS = {"timm:test_resnet": (64, 4, 95)}


def data(reported, in_time):
    """Images a second from files to the device, and of training beside batches that are there.

    Args:
        reported: a context that prints errors.
        in_time: tells whether there is time for another row.
    """
    with tempfile.TemporaryDirectory() as folder:
        few = write_jpegs(Path(folder), min(IMAGES, 64))
        index = Index(*(list(x) * (IMAGES // len(few)) for x in (few.files, few.keys)), _ones())
        places = Places(results=Path(folder), cache=Path(folder) / "cache")
        print(f"{os.cpu_count()} cores; images/s to {DEVICE}")
        for backbone, chosen in MODELS.items():
            if in_time():
                _training(reported, index, places, backbone, *chosen)
        for recipe, steps in RECIPES.items():
            _loading(reported, in_time, index, places, recipe, steps)


def _ones():
    return np.ones((IMAGES, 80), np.int8)


def _ways(index, places, steps, size=448):
    """Name -> a function of the number of threads that makes a source."""
    ways = {
        "turbo": lambda threads: source(index, steps, threads, size=size),
        "pillow": lambda threads: source(index, steps, threads, "pillow", size=size),
        "cache": lambda threads: source(index, steps, threads, places=places, size=size),
    }
    if CUDA:
        more = {"device": DEVICE, "size": size}
        ways["nvjpeg"] = lambda threads: source(index, steps, threads, "nvjpeg", **more)
    return ways


def _loading(reported, in_time, index, places, recipe, steps):
    for way, make in _ways(index, places, steps).items():
        for threads in THREADS if way != "nvjpeg" else THREADS[-1:]:
            if not in_time():
                return
            with reported(f"{recipe} {way}"):
                speed = _images_per_second(make(threads), index)
                print(f"{recipe:17} {way:7} {threads:3} threads {speed:8.0f}", flush=True)


def _images_per_second(images, index):
    order = np.split(np.random.default_rng(0).permutation(IMAGES), IMAGES // BATCH)
    for repeat in range(2):  # the first fills the cache and warms up
        started = time.perf_counter()
        for _ in batches(images, index, order, repeat, device=DEVICE):
            pass
        if CUDA:
            torch.cuda.synchronize()
    return IMAGES / (time.perf_counter() - started)


def _training(reported, index, places, backbone, size, batch, goal):
    """Epochs of the project's own loop; the GPU's rate is that of one batch used again."""
    settings = Settings(head="gap", backbone=backbone, weights="none", image_size=size)
    settings = settings.model_copy(update={"batch_size": batch, "epochs": 3})
    # Epochs of 16 steps at least: each begins with waiting for its first batch.
    positions = np.arange(IMAGES).repeat(4 * max(1, batch // 64) if CUDA else 1)
    index = index.take(positions)
    ways = _ways(index, places, RECIPES["controlled"], size)
    there = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, device=DEVICE)
    there = there.contiguous(memory_format=torch.channels_last)
    sources = {"on device": lambda positions, _: there[: len(positions)]}
    sources |= {way: make(THREADS[-1]) for way, make in ways.items() if way != "pillow"}
    alone = None
    for way, images in sources.items():
        with reported(f"{backbone} from {way}"):
            model, loss = build(settings, made_up_context(80, words=300), places)
            training = Training(
                settings=settings,
                index=index,
                source=images,
                loss=loss,
                seed=0,
                precision="bf16",
                device=DEVICE,
                world=World(),
                progress=Quiet(),
            )
            model.to(DEVICE).to(memory_format=torch.channels_last)
            state = training.start(model)
            finish(train(state, training))
            speed = max(one.images_per_second for one in state.log[1:])
            alone = alone or speed
            least = "" if way == "on device" else f" (goal {90 if way == 'cache' else goal}%)"
            print(
                f"{backbone}@{size} from {way:9} {speed:7.0f} {speed / alone:6.1%}{least}",
                flush=True,
            )
