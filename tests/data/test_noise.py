"""Draws that no order moves: labels hidden, flipped or told, and the validation part of train."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from mlbench.data import noise as module
from mlbench.data.labels import cooccurrence, label_context
from mlbench.data.noise import edition, noisy_targets, with_known_labels, with_label_noise
from mlbench.data.stratify import MOST, held_out, stratify
from mlbench.types import Index, KnownLabels, LabelNoise, Splits
from tests.store.made import CARD

NAMES = tuple("abcdefgh")

targets = arrays.arrays(
    np.int8, st.tuples(st.integers(1, 20), st.just(8)), elements=st.sampled_from([-1, 0, 1])
)
shares = st.floats(0.05, 0.95)
noises = st.one_of(
    st.builds(LabelNoise, keep=shares, assume_negative=st.booleans(), seed=st.integers(0, 9)),
    st.builds(LabelNoise, single_positive=st.just(True), assume_negative=st.booleans()),
    st.builds(LabelNoise, flip=shares, flip_which=st.sampled_from(["any", "present", "absent"])),
    st.builds(LabelNoise, flip=shares, keep=shares),
)


def index(targets_NC):
    keys = [f"image {i}" for i in range(len(targets_NC))]
    return Index([Path(key) for key in keys], keys, targets_NC)


def many(images=4000):
    rng = np.random.default_rng(0)
    return index((rng.random((images, 8)) < rng.uniform(0.05, 0.5, 8)).astype(np.int8))


def splits(train, test=None):
    return Splits(CARD, NAMES, train, test or many(50), "digest", "some")


@given(targets, noises, st.randoms(use_true_random=False))
def test_the_order_of_images_and_labels_does_not_matter(targets_NC, noise, shuffle):
    rows, columns = list(range(len(targets_NC))), list(range(8))
    shuffle.shuffle(rows)
    shuffle.shuffle(columns)
    whole = index(targets_NC)
    straight = noisy_targets(whole, NAMES, noise)
    names = [NAMES[i] for i in columns]
    other = noisy_targets(whole.take(np.array(rows)).select(columns), names, noise)
    assert np.array_equal(other, straight[rows][:, columns])
    assert np.array_equal(straight, noisy_targets(whole, NAMES, noise))


@given(targets, noises)
def test_noise_hides_or_turns_labels_and_never_tells_what_was_unknown(targets_NC, noise):
    before = targets_NC.copy()
    after = noisy_targets(index(targets_NC), NAMES, noise)
    assert np.array_equal(targets_NC, before), "in place"
    assert after.dtype == np.int8 and np.isin(after, [-1, 0, 1]).all()
    assert (after[before < 0] == -1).all()
    if not noise.flip:
        assert (after[after == 1] == before[after == 1]).all()
    if noise.assume_negative or not (noise.keep < 1 or noise.single_positive):
        assert np.array_equal(after < 0, before < 0)
    if noise.flip_which != "any":
        turned = before[(after != before)]
        assert (turned == (noise.flip_which == "present")).all()


@given(targets, st.booleans())
def test_one_positive_of_each_image_is_left(targets_NC, assumed):
    noise = LabelNoise(single_positive=True, assume_negative=assumed)
    after = noisy_targets(index(targets_NC), NAMES, noise)
    assert np.array_equal((after == 1).sum(axis=1), (targets_NC == 1).any(axis=1))
    assert (targets_NC[after == 1] == 1).all()
    known = (targets_NC >= 0).sum(axis=1) if assumed else (after == 1).sum(axis=1)
    assert np.array_equal((after >= 0).sum(axis=1), known)


def test_every_positive_is_as_likely_to_be_the_one():
    after = noisy_targets(index(np.ones((8000, 8), np.int8)), NAMES, LabelNoise(single_positive=1))
    counts = (after == 1).sum(axis=0)
    assert counts.min() > 880 and counts.max() < 1120, "1000 expected, deviation 30"


@pytest.mark.parametrize("keep", [0.1, 0.4, 0.9])
def test_this_share_of_positives_and_of_negatives_is_kept(keep):
    whole = many()
    after = noisy_targets(whole, NAMES, LabelNoise(keep=keep))
    for value in (0, 1):
        assert (after[whole.targets == value] >= 0).mean() == pytest.approx(keep, abs=0.02)
    assert np.allclose((after >= 0).mean(axis=0), keep, atol=0.04)


def test_what_is_kept_of_little_is_kept_of_more():
    whole = many(500)
    less, more = (noisy_targets(whole, NAMES, LabelNoise(keep=keep)) for keep in (0.3, 0.6))
    assert ((more >= 0) | (less < 0)).all()
    other = noisy_targets(whole, NAMES, LabelNoise(keep=0.3, seed=1))
    assert 0.05 < ((less >= 0) & (other >= 0)).mean() < 0.13, "0.09 expected of another seed"


@pytest.mark.parametrize("which", ["any", "present", "absent"])
def test_this_share_of_the_labels_is_flipped(which):
    whole = many()
    turned = noisy_targets(whole, NAMES, LabelNoise(flip=0.2, flip_which=which)) != whole.targets
    for value, kind in ((1, "present"), (0, "absent")):
        share = 0.2 if which in ("any", kind) else 0
        assert turned[whole.targets == value].mean() == pytest.approx(share, abs=0.02)


def test_flips_and_what_is_kept_are_drawn_apart():
    whole = many()
    flipped = noisy_targets(whole, NAMES, LabelNoise(flip=0.2))
    both = noisy_targets(whole, NAMES, LabelNoise(flip=0.2, keep=0.5))
    assert np.array_equal(both[both >= 0], flipped[both >= 0])
    assert (flipped != whole.targets)[both >= 0].mean() == pytest.approx(0.2, abs=0.02)


def test_blocks_of_rows_change_nothing(monkeypatch):
    noise = LabelNoise(keep=0.5, flip=0.1)
    whole = noisy_targets(many(100), NAMES, noise)
    monkeypatch.setattr(module, "_CELLS", 56)
    assert np.array_equal(noisy_targets(many(100), NAMES, noise), whole)


def test_the_draws_never_change():
    """Other draws would give other labels under the name of a known edition."""
    whole = index(np.tile(np.array([1, 0], np.int8), (2, 4)))
    after = noisy_targets(whole, NAMES, LabelNoise(keep=0.5, flip=0.3, seed=3))
    assert after.tolist() == [[0, 1, 1, -1, -1, 0, 0, 0], [-1, 0, -1, -1, 1, 0, 1, 0]]
    after = noisy_targets(whole, NAMES, LabelNoise(single_positive=True, flip=0.3, seed=3))
    assert np.argwhere(after >= 0).tolist() == [[0, 1], [1, 6]], "positives after the flips"
    told = with_known_labels(splits(whole, whole), KnownLabels(share=0.5, seed=3)).test.known
    assert told.tolist() == [[-1, 0, 1, -1, 1, -1, 1, 0], [-1, -1, -1, 0, -1, 0, 1, 0]]


def test_only_train_changes_and_the_edition_says_how():
    clean = splits(many(200))
    noisy = with_label_noise(clean, LabelNoise(keep=0.4))
    assert noisy.identity == "some-labels-40" and noisy.digest != clean.digest
    assert noisy.test is clean.test and noisy.train.keys == clean.train.keys
    assert noisy.before_noise is clean.train.targets
    context, _ = label_context(noisy.train, NAMES)
    assert np.array_equal(context.cooccurrence, cooccurrence(noisy.train.targets))
    assert context.positives.sum() < (clean.train.targets == 1).sum()
    assert with_label_noise(clean, LabelNoise()) is clean
    noises, others = (
        [LabelNoise(keep=0.4, seed=s) for s in range(3)],
        replace(clean, digest="other"),
    )
    assert len({with_label_noise(one, n).digest for one in (clean, others) for n in noises}) == 6


@pytest.mark.parametrize(
    ("noise", "name"),
    [
        ({"keep": 0.125, "seed": 2}, "labels-12.5-seed-2"),
        ({"single_positive": True}, "single-positive"),
        ({"single_positive": True, "assume_negative": True}, "single-positive-rest-negative"),
        ({"flip": 0.1}, "flipped-10"),
        ({"flip": 0.1, "flip_which": "present", "keep": 0.5}, "flipped-10-present-labels-50"),
    ],
)
def test_names_of_editions(noise, name):
    assert edition(LabelNoise(**noise)) == name


@pytest.mark.parametrize(
    "noise",
    [
        {"keep": 0},
        {"keep": 0.4, "single_positive": True},
        {"assume_negative": True},
        {"flip_which": "present"},
    ],
)
def test_noise_that_makes_no_sense_is_refused(noise):
    with pytest.raises(ValidationError):
        LabelNoise(**noise)


@given(targets, shares, st.integers(0, 3))
def test_known_labels_are_told_or_scored(targets_NC, share, seed):
    given_splits = splits(many(30), index(targets_NC))
    found = with_known_labels(given_splits, KnownLabels(share=share, seed=seed))
    told, scored = found.test.known, found.test.targets
    assert found.train is given_splits.train and found.validation is None
    assert ((told == -1) | (scored == -1)).all()
    assert (np.maximum(told, scored) == targets_NC).all()
    more = with_known_labels(given_splits, KnownLabels(share=min(share + 0.04, 0.99), seed=seed))
    assert (more.test.known[told >= 0] == told[told >= 0]).all()
    assert more.digest != found.digest != given_splits.digest


def test_a_share_of_the_labels_is_told_on_a_board_of_its_own():
    plain = replace(splits(many(30)), validation=many(10))
    found = with_known_labels(plain, KnownLabels.model_validate(0.25))
    assert (found.test.known >= 0).mean() == pytest.approx(0.25, abs=0.06)
    assert (found.validation.known >= 0).any()
    few = found.test.take(np.array([4, 2])).select([1, 0])  # as for a rehearsal
    assert np.array_equal(few.known, found.test.known[[4, 2]][:, [1, 0]])
    assert found.identity == "some-known-25"
    other = with_known_labels(plain, KnownLabels(share=0.25, seed=3))
    assert other.identity == "some-known-25-seed-3" and other.digest != found.digest
    assert with_known_labels(plain, KnownLabels()) is plain


@st.composite
def labelled(draw, most=60):
    """Keys, targets int8 [N, C] with unknowns, and a number to hold out."""
    n, c = draw(st.integers(2, most)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    often = rng.random(c) * draw(st.floats(0.02, 0.9))
    targets = (rng.random((n, c)) < often).astype(np.int8)
    targets[rng.random((n, c)) < 0.05] = -1
    return [f"{i:03d} é" for i in rng.permutation(n)], targets, draw(st.integers(1, n - 1))


@st.composite
def grouped(draw):
    keys, targets, held = draw(labelled(30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = [f"g{i}" for i in rng.integers(0, draw(st.integers(2, 30)), len(keys))]
    return keys, targets, held, names


@given(labelled(), st.randoms(use_true_random=False))
def test_neither_the_order_of_files_nor_a_draw_moves_an_image(case, random):
    keys, targets, held = case
    chosen = {k for k, side in zip(keys, stratify(*case), strict=True) if side}
    order = list(range(len(keys)))
    random.shuffle(order)
    shuffled = stratify([keys[i] for i in order], targets[order], held)
    assert chosen == {keys[i] for i, side in zip(order, shuffled, strict=True) if side}


def on_both_sides(present, side):
    """For each label, whether a positive stands on either side."""
    return present[side].any(axis=0) & present[~side].any(axis=0)


@given(labelled())
@settings(max_examples=200)
def test_a_label_is_on_both_sides_or_no_single_move_could_bring_it_there(case):
    _, targets, _ = case
    side, present = stratify(*case), targets == 1
    several = present.sum(axis=0) >= 2
    good = on_both_sides(present, side)
    for label in np.flatnonzero(several & ~good):
        for image in np.flatnonzero(present[:, label]):
            moved = side.copy()
            moved[image] ^= True
            assert (good & ~on_both_sides(present, moved) & several).any(), (label, image)


@given(st.integers(2, 40), st.integers(1, 5), st.integers(1, 39))
def test_labels_that_share_no_image_are_always_on_both_sides(images, labels, held):
    targets = np.repeat(np.eye(labels, dtype=np.int8), images, axis=0)
    keys = [str(i) for i in range(len(targets))]
    assert on_both_sides(targets == 1, stratify(keys, targets, min(held, len(keys) - 1))).all()


@given(labelled(), st.integers(0, 5))
def test_labels_without_much_overlap_keep_their_share(case, seed):
    """With one label an image, no label is further from its share than an image."""
    keys, targets, _ = case
    rng = np.random.default_rng(seed)
    one = np.zeros_like(targets)
    one[np.arange(len(one)), rng.integers(0, one.shape[1], len(one))] = 1
    held = max(1, len(keys) // 5)
    side = stratify(keys, one, held)
    for got, all_ in zip(one[side].sum(axis=0).tolist(), one.sum(axis=0).tolist(), strict=True):
        assert abs(got - Fraction(all_ * held, len(keys))) <= 1, (got, all_)


def test_a_set_like_the_benchmarks_keeps_the_share_of_every_label():
    """80 labels from 0.2 % to 50 % frequent and dependent, as COCO's; unlabelled images, too."""
    rng = np.random.default_rng(0)
    n, often = 6000, np.geomspace(0.002, 0.5, 80)
    scene = rng.random((n, 1)) < 0.5
    targets = (rng.random((n, 80)) < often * np.where(scene, 1.6, 0.4)).astype(np.int8)
    side = stratify([f"{i:012d}" for i in range(n)], targets, held_out(n))
    assert side.mean() == pytest.approx(0.2, abs=0.01)
    positives = targets.sum(axis=0)
    parts = targets[side].sum(axis=0)
    assert np.abs(parts - positives / 5).max() <= np.maximum(2, positives * 0.01).max()
    draws = rng.random(n) < 0.2
    by_chance = np.abs(targets[draws].sum(axis=0) - positives / 5).mean()
    assert np.abs(parts - positives / 5).mean() < by_chance / 4, "no better than a draw"


@given(grouped())
def test_a_group_is_never_parted(case):
    *_, names = case
    side = stratify(*case)
    for name in set(names):
        assert len({bool(s) for s, other in zip(side, names, strict=True) if other == name}) == 1


def test_no_more_is_held_out_than_ever_helps():
    assert held_out(1000) == 200 and held_out(117_266) == MOST and held_out(4) == 0


@pytest.mark.parametrize(
    ("rows", "held"),
    [
        (("111", "011", "110"), 1),
        (("101111", "101011", "111010", "111000", "100110"), 4),  # two moves
    ],
)
def test_a_group_moves_to_a_side_that_lacks_its_label(rows, held):
    targets = np.array([[*map(int, row)] for row in rows], np.int8)
    assert on_both_sides(targets == 1, stratify("01234"[: len(rows)], targets, held)).all()
