import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlbench.types import DataError
from mlbench_plugins.datasets import drawing, synthetic
from mlbench_plugins.datasets.synthetic import Synthetic

SMALL = {"train_images": 6, "test_images": 4, "size": 48}


def small(cache, **options):
    return Synthetic(None, cache, **{**SMALL, **options})


def pixels(index):
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in index.files])


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def joint():
    """How often two labels come together [C, C]; the diagonal is how often each label comes."""
    sets, probability = synthetic.distribution()
    return (sets.T * probability) @ sets


def test_probabilities_of_the_model():
    sets, probability = synthetic.distribution()
    assert probability.sum() == pytest.approx(1)
    assert {int(n) for n in sets[probability > 0].sum(1)} == set(range(1, synthetic.MOST + 1))
    frequency = joint().diagonal()
    assert frequency.min() > 0.08
    assert frequency.max() < 0.45


def test_labels_come_together_as_the_model_says():
    labels = synthetic.sample(np.random.default_rng(0).random(40_000)).astype(np.float64)
    observed = labels.T @ labels / len(labels)
    assert np.abs(observed - joint()).max() < 0.01


def test_company_tells_twins_apart():
    together, at = joint(), synthetic.NAMES.index
    company = together / together.diagonal()
    others = [c for c, name in enumerate(synthetic.NAMES) if name not in sum(synthetic.TWINS, ())]
    for one, other in synthetic.TWINS:
        ratio = company[others, at(one)] / company[others, at(other)]
        assert max(ratio.max(), 1 / ratio.min()) > 5
        assert together[at(one), at(other)] < 0.02


def test_twins_can_look_the_same_and_can_be_told_apart():
    for pair in synthetic.TWINS:
        (plain, clear), (other_plain, other_clear) = (
            [seen(name, clear) for clear in (False, True)] for name in pair
        )
        assert np.array_equal(plain, other_plain)
        assert np.abs(clear - other_clear).max() > 0.2
        assert np.abs(clear - plain).max() > 0.2


def seen(name, clear):
    canvas = drawing.Canvas(64, np.random.default_rng(5))
    drawing.ARTISTS[name](canvas, 0.5, 0.5, 0.2, clear)
    return canvas.pixels


def test_every_object_can_be_seen():
    assert set(drawing.ARTISTS) == set(synthetic.NAMES)
    for artist in drawing.ARTISTS.values():
        canvas = drawing.Canvas(96, np.random.default_rng(0))
        before = canvas.pixels.copy()
        artist(canvas, 0.5, 0.5, drawing.RADIUS[0], False)
        assert (np.abs(canvas.pixels - before).max(axis=2) > 0.15).sum() > 60


def test_same_pixels_on_every_machine(tmp_path):
    state = hashlib.sha256()
    for _, picture in small(tmp_path).pictures():
        state.update(picture.tobytes())
    assert state.hexdigest()[:16] == "05de0ba9f0d79f6b", (
        "pixels changed: raise NUMBERS and this hash"
    )


def test_files_hold_the_pictures_of_their_labels(tmp_path):
    data = small(tmp_path)
    train, test = data.index("train"), data.index("test")
    drawn = dict(data.pictures())
    assert {file.name for file in [*train.files, *test.files]} == set(drawn)
    for index in (train, test):
        wanted = np.stack([drawn[file.name] for file in index.files])
        assert np.array_equal(pixels(index), wanted)
        assert index.targets.dtype == np.int8


def test_options_change_what_they_say(tmp_path):
    first = small(tmp_path).index("train")
    assert np.array_equal(pixels(small(tmp_path, train_images=9).index("train"))[:6], pixels(first))
    assert not np.array_equal(pixels(small(tmp_path, seed=1).index("train")), pixels(first))
    assert pixels(small(tmp_path, size=32).index("test")).shape == (4, 32, 32, 3)


def test_pictures_are_drawn_once_and_again_where_damaged(tmp_path, monkeypatch):
    data = small(tmp_path)
    file = Path(data.index("test").files[2])
    before = content(data.folder)
    for damage in (
        lambda: file.write_bytes(before[file.name][:500]),
        file.unlink,
        lambda: (data.folder / "manifest.json").write_text("{"),
    ):
        damage()
        small(tmp_path).index("train")
        assert content(data.folder) == before
    monkeypatch.setattr(drawing, "picture", None)
    assert len(small(tmp_path).index("test")) == 4


def _use(folder):
    return hashlib.sha256(pixels(small(Path(folder)).index("train")).tobytes()).hexdigest()


def test_two_processes_may_draw_at_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = set(pool.map(_use, [str(tmp_path)] * 2, chunksize=1))
    assert found == {_use(str(tmp_path))}


def test_wrong_options_are_refused(tmp_path):
    for options, message in (
        ({"train_images": 0}, "train_images=0.* from 1 to 1,000,000"),
        ({"size": 31}, "size=31.* from 32 to 1,024"),
    ):
        with pytest.raises(DataError, match=message):
            small(tmp_path, **options)
