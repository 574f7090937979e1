"""Batch mixing: what mixed images are made of, and that no process changes it."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from mlbench.data.mixing import MIXINGS, Spliced, draw_mixes, make_mixing, union
from mlbench.types import Augmentation, SuiteError

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (13, 3, 10, 14), np.uint8))
TARGETS = torch.randint(-1, 2, (13, 5), generator=torch.Generator().manual_seed(1)).to(torch.int8)
EMPTY = torch.tensor([120.0, 110.0, 100.0]).view(1, 3, 1, 1)


def drawn(name, seed=0, images=13, **options):
    mixing = make_mixing(Augmentation(name=name, options=options))
    return mixing.draw(images, np.random.default_rng(seed))


def mixed(mix, rows=None):
    rows = np.arange(mix.rows) if rows is None else rows
    there = mix.needs(rows)
    return mix.apply(IMAGES[there], TARGETS[there], rows, EMPTY)


def test_labels_of_images_together():
    targets = torch.tensor([[[1, 0, -1, 0], [-1, -1, 0, 0], [0, 0, 0, 0]]])
    assert union(targets).tolist() == [[1, -1, -1, 0]]


@pytest.mark.parametrize("labels", ["linear", "union"])
def test_mixup_is_the_weighted_mean_of_partners(labels):
    mix = drawn("mixup", labels=labels)
    found, partners = mixed(mix), mix.partners
    assert sorted(partners) == list(range(13)) and 0 < mix.weight < 1
    expected = mix.weight * IMAGES + (1 - mix.weight) * IMAGES[partners]
    torch.testing.assert_close(found.inputs, expected.float())
    if labels == "linear":
        assert torch.equal(found.targets, TARGETS) and found.weight == mix.weight
        assert torch.equal(found.others, TARGETS[partners])
    else:
        assert found.others is None and found.weight == 1
        assert torch.equal(found.targets, union(torch.stack((TARGETS, TARGETS[partners]), 1)))


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_a_box_and_weighs_by_its_true_area(seed):
    mix = drawn("cutmix", seed)
    found = mixed(mix)
    pasted = (found.inputs != IMAGES).any(1).any(0)
    theirs = found.inputs == IMAGES[mix.partners]
    assert torch.equal(theirs | ~pasted, torch.ones_like(theirs))
    rows, columns = pasted.any(1), pasted.any(0)
    assert torch.equal(pasted, rows[:, None] & columns)  # a box
    assert found.weight == pytest.approx(1 - pasted.float().mean().item())


@pytest.mark.parametrize(("p", "images"), [(1.0, 8), (0.3, 8), (0.5, 6), (0.5, 3)])
def test_a_mixing_costs_as_many_images_as_it_adds(p, images):
    chosen = Augmentation(name="splicemix", options={"p": p})
    rows = [mix.rows if mix else images for mix in draw_mixes(chosen, [images] * 2000, 0, 0)]
    assert make_mixing(chosen).cost(images) == pytest.approx(np.mean(rows) / images, abs=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_splicemix_appends_grids_whose_labels_are_those_of_their_cells(seed):
    mix = drawn("splicemix", seed, drop=float(seed % 2))
    found, (down, across) = mixed(mix), mix.grid
    assert torch.equal(found.inputs[:13], IMAGES.float())
    assert torch.equal(found.targets[:13], TARGETS) and mix.rows == 13 + 13 // 4
    assert len(np.unique(mix.sources)) == min(mix.sources.size, 13)
    per_grid = mix.dropped.sum(1)
    low, high = (1, down * across - 1) if seed % 2 else (0, 0)
    assert (per_grid == per_grid[0]).all() and low <= per_grid[0] <= high
    for k, (sources, dropped) in enumerate(zip(mix.sources, mix.dropped, strict=True)):
        kept = TARGETS[sources].masked_fill(torch.from_numpy(dropped)[:, None], 0)
        assert torch.equal(found.targets[13 + k], union(kept[None])[0])
        if 10 % down == 0 and 14 % across == 0:
            grid = found.inputs[13 + k].unflatten(1, (down, -1)).unflatten(3, (across, -1))
            small = interpolate(IMAGES.float(), grid.shape[2::2], None, "bilinear", True)
            for cell, (i, j) in enumerate(np.ndindex(mix.grid)):
                expected = (
                    EMPTY[0].expand(small[0].shape) if dropped[cell] else small[sources[cell]]
                )
                torch.testing.assert_close(grid[:, i, :, j], expected)


def test_grids_that_do_not_divide_an_image_have_its_size():
    mix = Spliced(13, (3, 3), np.arange(9).reshape(1, 9), np.zeros((1, 9), bool))
    grid = mixed(mix).inputs[13]
    assert grid.shape == (3, 10, 14)
    for cell, corner in ((0, 0), (8, -1)):
        torch.testing.assert_close(grid[:, corner, corner], IMAGES[cell, :, corner, corner].float())


@pytest.mark.parametrize("name", MIXINGS)
def test_processes_make_the_rows_of_one(name):
    mix = drawn(name, 3)
    whole = mixed(mix)
    for processes in (2, 3, 5):
        rows = np.array_split(np.arange(mix.rows), processes)
        parts = [mixed(mix, one) for one in rows]
        for field in ("inputs", "targets") + (("others",) if name != "splicemix" else ()):
            joined = torch.cat([getattr(part, field) for part in parts])
            assert torch.equal(joined, getattr(whole, field))
        assert {part.weight for part in parts} == {whole.weight}


def test_draws_depend_on_seed_epoch_and_step():
    mixup = Augmentation(name="mixup")
    weights = [
        mix.weight
        for seed, epoch in ((0, 0), (1, 0), (0, 1))
        for mix in draw_mixes(mixup, [8, 8], seed, epoch)
    ]
    assert len(set(weights)) == 6
    assert weights[:2] == [mix.weight for mix in draw_mixes(mixup, [8, 8], 0, 0)]
    assert draw_mixes(Augmentation(name="mixup", options={"p": 0}), [8, 8], 0, 0) == [None, None]
    assert draw_mixes(Augmentation(name="splicemix"), [3], 0, 0) == [None]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cutmixx", {}, "unknown mixing 'cutmixx'; did you mean cutmix"),
        ("mixup", {"alfa": 1}, "mixing 'mixup': unknown option 'alfa'; did you mean alpha"),
        ("splicemix", {"drop": 2}, "mixing 'splicemix': drop"),
    ],
)
def test_what_cannot_be_is_refused(name, options, said):
    with pytest.raises(SuiteError, match=said):
        make_mixing(Augmentation(name=name, options=options))


def test_weights_are_of_the_beta_distribution_and_boxes_of_their_area_or_clipped():
    weights = [drawn("mixup", seed).weight for seed in range(400)]
    np.testing.assert_allclose(np.quantile(weights, [0.25, 0.75]), [0.25, 0.75], atol=0.07)
    assert drawn("mixup", alpha=1e6).weight == pytest.approx(0.5, abs=0.01)
    over = [(mix := drawn("cutmix", seed)).weight - mixed(mix).weight for seed in range(60)]
    assert max(over) < 0.02 and np.median(np.abs(over)) < 0.2


def test_splicemix_draws_the_published_grids():
    mixes = draw_mixes(Augmentation(name="splicemix"), [13] * 2000, 0, 0)
    grids = [mix.grid for mix in mixes]
    wanted = {(1, 2): 0.15, (2, 1): 0.15, (2, 2): 0.4, (2, 3): 0.15, (3, 2): 0.15}
    assert {g: grids.count(g) / 2000 for g in {*grids}} == pytest.approx(wanted, abs=0.03)
    assert np.mean([mix.dropped.any() for mix in mixes]) == pytest.approx(0.3, abs=0.03)
    six = [mix for mix in mixes if mix.dropped.shape[1] == 6]
    assert {mix.dropped[0].sum() for mix in six} == {*range(6)}
    assert {mix.sources[0, 0] for mix in six} == {*range(13)}
    assert any((mix.dropped[0] != mix.dropped[1]).any() for mix in mixes)
