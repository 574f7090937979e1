"""What pages derive: images by average precision, curves, facts."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbench.metrics import average_precision
from mlbench.metrics.measurement import Case
from mlbench.metrics.protocols import find
from mlbench.store import Store
from mlbench.types import EpochLog, Predictions, StoreError
from mlbench_tools.page import derived
from mlbench_tools.page.curves import HEIGHT, WIDTH, curve
from mlbench_tools.page.examples import examples, image_average_precision
from mlbench_tools.page.facts import facts, number
from mlbench_tools.page.label_tables import PositiveCounts, interval, labels
from mlbench_tools.page.reliability import BOTTOM, LEFT, LOW, RIGHT, TOP, diagram, reliability
from mlbench_tools.page.stale import remove_stale
from tests.store.made import NAMES, made_predictions, made_record


def plain(logits, targets):
    """Average precision of one image from its definition."""
    terms = []
    for label in np.flatnonzero(targets == 1):
        above = [i for i in range(len(logits)) if logits[i] >= logits[label] and targets[i] >= 0]
        terms.append(sum(targets[i] == 1 for i in above) / len(above))
    return sum(terms) / len(terms) if terms else float("nan")


@given(
    st.integers(1, 6).flatmap(
        lambda c: st.lists(
            st.tuples(
                st.lists(st.integers(-2, 2), min_size=c, max_size=c),
                st.lists(st.sampled_from([-1, 0, 1]), min_size=c, max_size=c),
            ),
            min_size=1,
            max_size=5,
        )
    )
)
def test_the_average_precision_of_an_image_is_its_definition(rows):
    logits = np.array([row[0] for row in rows], np.float32)
    targets = np.array([row[1] for row in rows], np.int8)
    wanted = [plain(*row) for row in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(image_average_precision(logits, targets), wanted)


@pytest.fixture
def stored(tmp_path):
    """Predictions -> their file."""

    def written(predictions):
        record = made_record()
        return Store(tmp_path).write(record, predictions).with_suffix(".npz")

    return written


def four():
    """Images that are ranked rightly, rightly and surely, wrongly, and one without a label."""
    return Predictions(
        logits=np.array([[1, 0, -1], [9, -9, -9], [-1, 0, 1], [0, 0, 0]], np.float32),
        targets=np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, -1]], np.int8),
        keys=("right", "sure", "wrong", "none"),
    )


def test_worst_and_best_images(stored, tmp_path):
    found = examples(stored(four()), NAMES, 10, tmp_path / "cache")
    assert [e.key for e in found.worst] == ["wrong", "right", "sure"]
    assert [e.key for e in found.best] == ["sure", "right", "wrong"]
    assert (found.worst[0].precision, found.worst[0].present) == (33.33, ("cat",))
    assert found.worst[0].predicted == ("tv | monitor", "dog", "cat")
    assert (found.seen, found.images) == (4, 4)


def test_the_ends_are_those_of_the_whole_ranking(stored, tmp_path):
    """Of 300 images most are ranked without a fault, and surest comes first among them."""
    rng = np.random.default_rng(0)
    targets = (rng.random((300, 3)) < 0.5).astype(np.int8)
    logits = (2 * targets + rng.standard_normal((300, 3))).astype(np.float32)
    keys = tuple(f"{i:03d}" for i in range(300))
    found = examples(stored(Predictions(logits, targets, keys)), NAMES, 300, tmp_path / "cache")
    precision = image_average_precision(logits, targets)
    loss = np.logaddexp(0, np.where(targets == 1, -logits, logits)).mean(axis=1)
    ranked = [i for i in np.lexsort((-loss, precision)) if np.isfinite(precision[i])]
    assert [e.key for e in found.worst] == [keys[i] for i in ranked[:10]]
    assert [e.key for e in found.best] == [keys[i] for i in ranked[:-11:-1]]


def test_a_part_of_the_images_is_said_and_more_are_read_when_more_may_be(stored, tmp_path):
    file = stored(four())
    part = examples(file, NAMES, 2, tmp_path / "cache")
    assert (part.seen, part.images) == (2, 4) and "wrong" not in [e.key for e in part.worst]
    assert examples(file, NAMES, 3, tmp_path / "cache").seen == 3
    assert examples(file, NAMES, 1, tmp_path / "cache").seen == 3, "what is known is not forgotten"


@pytest.mark.parametrize("damage", ["cut", "no zip", "labels"])
def test_damaged_predictions_are_named(stored, tmp_path, damage):
    file = stored(made_predictions(n=50))
    data = file.read_bytes()
    names = NAMES[:2] if damage == "labels" else NAMES
    if damage != "labels":
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"hello")
    with pytest.raises(StoreError, match=r"npz: damaged predictions .*; restore the file"):
        examples(file, names, 10, tmp_path / "cache")


def test_a_damaged_cache_is_made_anew(stored, tmp_path):
    file, cache = stored(four()), tmp_path / "cache"
    first = examples(file, NAMES, 10, cache)
    for kept in cache.iterdir():
        kept.write_text("{")
    assert examples(file, NAMES, 10, cache) == first


def test_a_cache_that_cannot_be_written_is_named(stored, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StoreError, match="MLBENCH_CACHE"):
        examples(stored(four()), NAMES, 10, tmp_path / "cache")


def test_another_kind_is_another_file(stored, tmp_path):
    file = stored(four())
    assert derived.place(file, "a", tmp_path) != derived.place(file, "b", tmp_path)


def log(epoch, loss):
    return EpochLog(epoch=epoch, loss=loss, lr=1e-3, seconds=1, images_per_second=10)


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40))
def test_a_curve_stays_in_its_drawing_and_falls_where_the_loss_falls(losses):
    made = curve([log(i + 1, loss) for i, loss in enumerate(losses)])
    for point in (*made.points, *made.up, *made.across):
        assert all(0 <= value <= WIDTH for value in point if isinstance(value, float))
    assert all(0 <= p.y <= HEIGHT for p in made.points)
    for (a, b), (p, q) in zip(pairwise(losses), pairwise(made.points), strict=True):
        assert (a >= b) == (p.y <= q.y) or p.y == pytest.approx(q.y)


@pytest.mark.parametrize("losses", [(0.0402, 0.0401), (123456.0, 1e-6), (1.0, 0.5)])
def test_the_numbers_of_the_loss_axis_have_room(losses):
    made = curve([log(i + 1, loss) for i, loss in enumerate(losses)])
    longest = max(len(tick.text) for tick in made.up)
    assert made.left - 6 >= 11 * longest, "11 units a digit is what a phone draws"
    assert min(p.x for p in made.points) == made.left


def test_no_curve_of_one_epoch():
    assert curve([log(1, 0.5)]) is None and curve([log(1, 0.5), log(2, float("inf"))]) is None


def test_facts_are_flat_and_leave_out_what_says_nothing():
    found = facts(
        {"a": {"b": 0.00123456789, "c": None, "d": ()}, "e": True, "f": [1, 2], "g": [{}]}
    )
    assert found == [("a.b", "0.00123457"), ("e", "yes"), ("f", "1, 2"), ("g", "[{}]")]


def test_numbers():
    assert [number(v) for v in (1234.5, None, float("nan"))] == [
        "1,234.50",
        "\N{EN DASH}",
        "\N{EN DASH}",
    ]


def calibrated(probability, targets):
    logits = np.log(probability / (1 - probability)).astype(np.float32)
    return reliability(find("calibration").measure(Case(logits, targets)))


def test_a_calibrated_model_lies_on_the_diagonal_and_an_overconfident_one_below_it():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.02, 0.98, (20_000, 3))
    targets = (rng.random(truth.shape) < truth).astype(np.int8)
    honest = diagram(calibrated(truth, targets))
    assert len(honest.bins) == 15 and sum(b.entries for b in honest.bins) == truth.size
    for each in honest.bins:
        across, up = (each.x - LEFT) / (RIGHT - LEFT), (BOTTOM - each.y) / (BOTTOM - TOP)
        assert across == pytest.approx(each.confidence / 100) and abs(across - up) < 0.05
    sure = diagram(calibrated(np.clip(truth * 1.5, 0.01, 0.99), targets))
    assert sure.errors["ECE"] > honest.errors["ECE"] + 5
    assert all(b.frequency < b.confidence for b in sure.bins if b.confidence > 40)


def test_an_empty_bin_has_neither_point_nor_bar_and_more_entries_a_higher_bar():
    made = diagram(
        calibrated(np.array([[0.05]] * 90 + [[0.95]] * 10), np.array([[0]] * 90 + [[1]] * 10))
    )
    assert [(b.edges, b.entries, b.frequency) for b in made.bins] == [
        ("0 to 7", 90, 0),
        ("93 to 100", 10, 100),
    ]
    first, second = (LOW - float(top) for top in re.findall(r"V([\d.]+)H", made.bars))
    assert made.bars.count("M") == 2 and first > second > 0 and made.most == 90


def test_labels_tell_their_test_positives_and_the_weakest_comes_first():
    record = made_record(average_precision=(50.0, 40.0, None), train_positives=(9, 8, 7))
    found = labels(record, (4, 40, 0))
    assert [(x.name, x.ap, x.tested, x.trained) for x in found] == [
        ("dog", 40.0, 40, 8),
        ("cat", 50.0, 4, 9),
    ]
    assert labels(record, None)[0].low is None


@given(st.floats(0, 100), st.integers(1, 1000))
def test_an_interval_of_a_label_holds_its_score_and_shrinks_with_positives(ap, positives):
    low, high = interval(ap, positives)
    more = interval(ap, positives + 1)
    assert 0 <= low <= ap + 1e-9 and ap - 1e-9 <= high <= 100
    assert high - low > more[1] - more[0] > 0, "not even 100 % is sure"


@pytest.mark.parametrize(("positives", "separation"), [(4, 4.0), (10, 2.5), (30, 1.5), (100, 2.5)])
def test_an_interval_of_a_label_covers_what_it_says(positives, separation):
    """Normal scores; the truth is the precision over a large draw of the same prevalence."""
    rng, images = np.random.default_rng(0), 900

    def drawn(times):
        targets = np.zeros(images * times, np.int8)
        targets[: positives * times] = 1
        scores = rng.standard_normal(len(targets)) + separation * targets
        found = average_precision(scores[:, None].astype(np.float32), targets[:, None])
        return 100 * float(found[0])

    truth = drawn(200)
    bounds = [interval(drawn(1), positives) for _ in range(300)]
    assert np.mean([low <= truth <= high for low, high in bounds]) > 0.9


def test_test_positives_are_counted_once_for_runs_of_one_split(tmp_path, monkeypatch):
    made = made_predictions(n=40)
    store, counts = Store(tmp_path), PositiveCounts()
    files = [
        store.write(record, made).with_suffix(".npz")
        for record in (made_record(), made_record(spec={"seed": 1}))
    ]
    assert counts.of(files[0]) == tuple((made.targets == 1).sum(axis=0))
    monkeypatch.setattr("numpy.lib.format.read_array", lambda *_, **__: 1 / 0)
    assert counts.of(files[1]) == counts.of(files[0])
    assert counts.of(tmp_path / "none.npz") is None
    files[1].write_bytes(b"hello")
    with pytest.raises(StoreError, match="damaged"):
        counts.of(files[1])


MARK = '<meta name="generator" content="mlbench leaderboard">'


def test_only_pages_with_our_mark_in_their_head_are_stale(tmp_path):
    kept = {
        "written.html": MARK,
        "foreign.html": "<title>mine</title>",
        "quoting.html": "x" * 600 + MARK,
        "notes.txt": MARK,
    }
    for name, text in {**kept, "gone.html": f"<!doctype html>{MARK}"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "linked.html").symlink_to(tmp_path / "written.html")
    remove_stale(tmp_path, {tmp_path / "written.html"})
    assert {file.name for file in tmp_path.iterdir()} == {*kept, "folder.html", "linked.html"}
