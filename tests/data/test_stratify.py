"""The validation part of train, by its definition and by what it must hold."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.data.stratify import MOST, held_out, stratify


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
