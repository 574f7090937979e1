"""C-Tran from training with label masks to boards on which some labels are known."""

import re

import numpy as np
import pytest
import torch

from mlbench.boards.rows import tables
from mlbench.contracts.made_up import PYRAMID, features, made_up_context
from mlbench_plugins.methods.c_tran import CTran

SIZES = "dataset_options={train_images: 24, test_images: 40, size: 32}"


def test_a_state_is_added_to_the_vector_of_its_label():
    """Telling a label moves it by the difference of two states, as moving the label itself does."""
    torch.manual_seed(0)
    head, maps = CTran(PYRAMID, made_up_context(3), layers=2).eval(), features(PYRAMID)
    with torch.no_grad():
        told = head(maps, torch.tensor([[-1, 1, 0]] * 2)).logits
        head.labels[1:] += head.states.flip(0) - head.unknown
        torch.testing.assert_close(head(maps).logits, told)
    assert head.unknown.any() and not head.unknown.requires_grad, "random, and never trained"


@pytest.mark.slow
def test_known_labels_have_boards_of_their_own(cli, tmp_path, store):
    command = ("run", "--plugins", "c_tran,gap,timm:mobilenetv2_035", "--track", "probe")
    command += ("--epochs", 1, "--weights", "none", "--image-size", 32, "--set", "measure=false")
    command += ("--set", SIZES)
    cli(*command, "--set", "grid.known_labels=[0, 0.5]").ok()
    found = {(r.spec.method, r.spec.known_labels.share): r for r in store.records()}
    assert len(found) == 4 and len({table.name for table in tables(found.values())}) == 2
    plain, known = (found["c_tran", share] for share in (0.0, 0.5))
    assert known.identity == f"{plain.identity}-known-50"
    assert "about 50% of the labels of test images are told" in known.notes[-1]
    seen = {key: store.predictions(record) for key, record in found.items()}
    whole, rest = (seen["c_tran", share].targets for share in (0.0, 0.5))
    assert (rest == np.where(rest < 0, -1, whole)).all()
    assert 0.4 < (rest < 0).mean() < 0.6
    for method, told in (("gap", False), ("c_tran", True)):
        # Training is the same: all that differs is what the head is told.
        logits = [seen[method, share].logits for share in (0.0, 0.5)]
        assert told != np.allclose(*logits, atol=1e-6)
    scored = cli("evaluate", tmp_path / "results" / known.checkpoint, "--dataset", "synthetic")
    again = float(re.search(r"mAP +([\d.]+)", scored.out)[1])
    assert again == pytest.approx(plain.scores.mAP, abs=1), "without known labels as any other"
    command += ("--losses", "an", "--dry-run")
    assert "loss an learns from unknown labels" in cli(*command).err
    taken = cli(*command, "--set", "per_method.c_tran.head_options.most_known=0")
    assert "learns from unknown" not in taken.err + taken.out and "c_tran" in taken.out
