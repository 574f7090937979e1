import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn

from mlbench.engine.distributed import World
from mlbench.engine.features import FeatureCache, levels_read
from mlbench.types import DataError, HeadOutput, Index, MeasureError, Places
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


class Counted(tiny.Backbone):
    """Counts the images that it sees."""

    seen = 0

    def forward(self, images):
        self.seen += len(images)
        return super().forward(images)


class BothLevels(tiny.Head):
    """Reads the first level, too."""

    def forward(self, features):
        output = super().forward(features)
        return HeadOutput(output.logits + features[0].mean((1, 2, 3))[:, None], output.aux)


def counted(head=tiny.Head):
    return tiny.model(0, head, Counted)


def source(folder, data, images, model=None, progress=None, **identity):
    pixels = tiny.Pixels(images) if isinstance(images, torch.Tensor) else images
    identity = {"backbone": "tiny", **identity}
    places, world = Places(results=folder, cache=folder), World()
    progress = progress or tiny.Quiet()
    cache = FeatureCache(places, model or counted(), identity, "tiny", world, progress)
    return cache.source("train", data, pixels)


everything = np.arange(5)


def files(folder):
    return sorted(file for file in folder.rglob("*") if file.suffix == ".rows")


def test_maps_are_the_backbones_in_half_precision(tmp_path, data, images):
    maps = source(tmp_path, data, images, counted(BothLevels))(np.array([3, 1]), 0)
    with torch.no_grad():
        expected = counted().eval().features(images[[3, 1]])
    assert len(maps) == 2 and all(m.dtype == torch.float16 for m in maps)
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found.float(), wanted, atol=1e-3, rtol=1e-3)


def test_maps_are_made_once_for_everyone_and_the_log_says_how_fast(tmp_path, data, images, caplog):
    model, another = counted(), counted()
    caplog.set_level("INFO")
    source(tmp_path, data, images, model)
    assert model.backbone.seen == 1 + 5  # one image, for the shape of the maps
    source(tmp_path, data, images, another)(everything, 0)
    assert another.backbone.seen == 1
    (line,) = caplog.messages
    assert re.fullmatch(r"made feature maps of train: 5 images, [\d.]+ images/s", line)


def test_only_levels_that_a_head_reads_are_made_and_others_are_added(tmp_path, data, images):
    first, last = source(tmp_path, data, images)(everything, 0)
    assert not first.numel() and last.shape == (5, 6, 4, 4)
    (made,) = files(tmp_path)
    before = made.stat().st_mtime_ns
    added = source(tmp_path, data, images, counted(BothLevels))(everything, 0)
    assert [file.name for file in files(tmp_path)] == ["level-0.rows", "level-1.rows"]
    assert made.stat().st_mtime_ns == before and torch.equal(added[1], last)


def test_what_a_head_reads_is_found_without_changing_it():
    maps = (torch.zeros(1, 4, 8, 8), torch.zeros(1, 6, 4, 4))

    class InTraining(tiny.Head):
        def forward(self, features):
            return (
                BothLevels.forward(self, features) if self.training else super().forward(features)
            )

    class Untraceable(tiny.Head):
        def forward(self, features):
            if features[-1].sum() > 0:
                raise AssertionError
            return super().forward(features)

    class Normed(tiny.Head):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(6)

        def forward(self, features):
            _, last = features
            return super().forward((nn.functional.dropout(self.norm(last)),))

    head = Normed()
    before, drawn = head.state_dict(), torch.random.get_rng_state()
    assert levels_read(head, maps) == [1]
    assert torch.equal(torch.random.get_rng_state(), drawn)
    torch.testing.assert_close(head.state_dict(), before)
    assert levels_read(InTraining(), maps) == levels_read(Untraceable(), maps) == [0, 1]


def test_everything_that_changes_maps_changes_the_key(data, tmp_path, images, monkeypatch):
    def folders():
        return {file.parent for file in files(tmp_path / "cache")}

    def make(index=data, pixels=images, **identity):
        before = len(folders())
        source(tmp_path / "cache", index, pixels, **identity)
        assert len(folders()) == before + 1

    make()
    make(image_size=32)
    make(Index(data.files, ["x", *data.keys[1:]], data.targets))
    os.utime(data.files[0], ns=(1, 1))
    make()
    data.files[0].write_bytes(b"longer")
    os.utime(data.files[0], ns=(1, 1))
    make()
    make(pixels=255 - images)
    monkeypatch.setattr("mlbench.engine.features.pixel_code", lambda: "another decoder")
    make()


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path, data, images):
    class Failing(tiny.Pixels):
        def __call__(self, positions, epoch):
            if positions.tolist() == [4]:
                raise RuntimeError("power cut")
            return super().__call__(positions, epoch)

    with pytest.raises(RuntimeError, match="power cut"):
        source(tmp_path / "cache", data, Failing(images))
    model = counted()
    maps = source(tmp_path / "cache", data, images, model)(everything, 0)
    assert model.backbone.seen == 1 + 1
    with torch.no_grad():
        expected = counted().eval().features(images)[1]
    torch.testing.assert_close(maps[1].float(), expected, atol=1e-3, rtol=1e-3)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 16
    file.write_bytes(content)


DAMAGES = {
    "a flipped bit": flip,
    "a missing level": lambda f: f.unlink(),
    "a missing identity": lambda f: (f.parent / "identity.json").unlink(),
    "no identity": lambda f: (f.parent / "identity.json").write_bytes(b"\0{"),
    "a missing folder": lambda f: shutil.rmtree(f.parent),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_maps_are_made_again(tmp_path, data, images, damage, caplog):
    wanted = source(tmp_path, data, images, counted(BothLevels))(everything, 0)
    DAMAGES[damage](files(tmp_path)[1])
    model = counted(BothLevels)
    model.backbone.train()  # as in training, which must not show in the maps
    for _ in range(2):
        found = source(tmp_path, data, images, model)(everything, 0)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    (note,) = tmp_path.rglob("identity.json")
    assert json.loads(note.read_text())["what"] == "feature maps of train, tiny"
    assert len(caplog.records) == (damage == "a flipped bit")
    assert all("feature maps of train are damaged" in line for line in caplog.messages)


def test_maps_that_are_damaged_while_they_are_read_are_made_as_in_evaluation(
    tmp_path, data, images, caplog
):
    wanted = source(tmp_path, data, images)(everything, 0)
    model = counted()
    read = source(tmp_path, data, images, model)
    content = bytearray(files(tmp_path)[0].read_bytes())
    content[::7] = bytes(len(content[::7]))
    files(tmp_path)[0].write_bytes(content)
    model.train()
    assert torch.equal(read(everything, 0)[1], wanted[1]) and model.training
    assert len(caplog.records) == 1


def test_a_disk_without_room_is_said_before_anything_is_made(tmp_path, data, images, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(DataError, match=r"need 0.0 MiB .*`mlbench cache` says what takes it"):
        source(tmp_path, data, images)


def test_maps_beyond_half_precision_are_an_error(tmp_path, data, images):
    model = tiny.model()
    with torch.no_grad():
        model.backbone.two[1].weight.fill_(1e9)
    with pytest.raises(MeasureError, match="half precision"):
        source(tmp_path / "cache", data, images, model=model)


def test_of_two_runs_that_need_the_same_maps_one_makes_them_and_the_other_waits(
    tmp_path, data, images, monkeypatch
):
    monkeypatch.setattr("mlbench.engine.features.POLL", 0.05)
    begun, waits, said = Event(), Event(), []

    class Slow(Counted):
        def forward(self, images):
            if self.seen >= 1:  # the first image only tells the maps' shapes
                begun.set()
                assert waits.wait(30)
            return super().forward(images)

    class Waiting(tiny.Quiet):
        def phase(self, text):
            said.append(text)
            waits.set()

    slow, other = tiny.model(backbone=Slow), counted()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(source, tmp_path, data, images, slow)
        assert begun.wait(30)
        second = source(tmp_path, data, images, other, Waiting())
        pairs = zip(first.result()(everything, 0), second(everything, 0), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert (slow.backbone.seen, other.backbone.seen) == (1 + 5, 1)
    assert said[0].startswith("waiting for feature maps of train, made by ")
