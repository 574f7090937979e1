import numpy as np
import pytest

from mlbench.boards.ranks import SeedNoise, pooled
from mlbench.store import Store
from mlbench.types import MeasureError, StoreError
from mlbench_tools.analysis.comparison import compare, read
from tests.boards.scored import labels, write
from tests.store.made import made_record

NO_SEEDS = SeedNoise()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def held(store, first, second, training=NO_SEEDS):
    return compare(read(first, store), read(second, store), training, resamples=300)


def test_a_difference_has_an_interval_classes_and_settings(store):
    a = write(store, "msrn", 2.0, noise=1, settings={"optimizer": {"lr": 1e-3}})
    b = write(store, "gap", 0.5, noise=2)
    found = held(store, [a], [b])
    over = found.over_images
    assert over.difference == pytest.approx(a.scores.mAP - b.scores.mAP)
    assert 0 < over.low < over.difference < over.high and over.p == pytest.approx(2 / 301)
    assert found.over_training is None and found.images == 400
    assert all(one.moved for one in found.classes) and len(found.classes) == 3
    sizes = [abs(one.difference) for one in found.classes]
    assert sizes == sorted(sizes, reverse=True)
    named = {one.name: one for one in found.classes}["dog"]
    assert named.first - named.second == pytest.approx(named.difference)
    assert named.positives == int((labels()[:, 1] == 1).sum())
    settings = {name: values for name, *values in found.settings}
    assert settings["optimizer.lr"] == [1e-3, 1e-4] and settings["method"] == ["msrn", "gap"]


def test_equal_models_differ_in_nothing(store):
    a, b = (write(store, method, noise=1) for method in ("a", "b"))
    found = held(store, [a], [b])
    assert found.over_images.p == 1 and not any(one.moved for one in found.classes)


def test_the_noise_of_training_widens_the_interval(store):
    rows = [
        [write(store, m, q, noise=10 * s + i, spec={"seed": s}) for s in range(3)]
        for i, (m, q) in enumerate((("a", 1.2), ("b", 1.0)))
    ]
    training = pooled(rows)
    found = held(store, *rows, training)
    assert found.training_deviations == (training.deviation,) * 2 and training.deviation > 0
    assert found.first.run_ids == tuple(record.run_id for record in rows[0])
    assert found.over_training.low < found.over_images.low
    assert found.over_training.high > found.over_images.high
    assert "seed" not in [name for name, *_ in found.settings]
    single = held(store, rows[0][:1], rows[0][1:2], training)
    assert ("seed", 0, 1) in single.settings


def test_what_does_not_compare_is_refused(store):
    a = write(store, "a")
    others = {
        "other splits: 400 and 300 images, of which 300": write(
            store, "b", targets=labels()[:300], spec={"data": "e" * 16}
        ),
        r"differ in \d+ entries of their targets": write(store, "c", targets=labels(seed=1)),
        "have other labels": write(store, "d", label_names=("cat", "tv", "dog")),
    }
    for message, other in others.items():
        with pytest.raises(MeasureError, match=message):
            held(store, [a], [other])
    missing = made_record("e")
    store.write(missing)
    with pytest.raises(StoreError, match=f"{missing.run_id} has no predictions"):
        held(store, [a], [missing])


def test_the_order_of_images_in_a_file_changes_nothing(store):
    a, b = write(store, "a", 1.5, noise=1), write(store, "b", noise=2)
    first, second = read([a], store), read([b], store)
    assert first.predictions[0].keys == second.predictions[0].keys
    np.testing.assert_array_equal(first.predictions[0].targets, labels())
