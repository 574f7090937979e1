"""Random numbers: one stream a purpose, and no generator made elsewhere."""

import re
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np

from mlbench.metrics.bootstrap import _draws
from mlbench.types.samples import Purpose, stream
from mlbench_plugins.datasets.synthetic import Synthetic, sample

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "mlbench/contracts/made_up.py": "inputs of checks",
    "mlbench/data/labels.py": "seeded with the SHA-256 of a label's name",
    "mlbench/types/samples.py": "here",
    "plugins/mlbench_plugins/datasets/apparel.py": "the authors' split",
    "plugins/mlbench_tools/weights/fixtures.py": "made-up weights, seeded with their name",
}
"""Files that make a generator of their own -> why it meets no other."""


def test_no_two_purposes_share_a_stream():
    first = {
        (purpose, *numbers): stream(purpose, *numbers).integers(2**63)
        for purpose in get_args(Purpose)
        for numbers in product(range(4), repeat=3)
    }
    assert len(set(first.values())) == len(first)
    assert stream("shuffle", 3).integers(2**63) == first["shuffle", 3, 0, 0], "zeros if left out"


def test_generators_are_made_in_one_place():
    made = re.compile(r"default_rng\(|SeedSequence\(|RandomState\(|[^.]random\.Random\(|PCG64\(")
    found = {
        file.relative_to(ROOT).as_posix()
        for folder in ("mlbench", "plugins")
        for file in (ROOT / folder).rglob("*.py")
        if made.search(file.read_text())
    }
    assert found == set(ELSEWHERE)


def test_labels_of_the_synthetic_set_do_not_follow_the_shuffle(tmp_path):
    """They were drawn with (seed, split, 0), which NumPy takes for the shuffle's (seed, epoch)."""
    found = Synthetic(None, tmp_path, train_images=50)._targets("train")
    for epoch in (1, 2):
        assert not (found == sample(stream("shuffle", 0, epoch).random(50))).all()


def test_the_bootstrap_does_not_follow_the_first_shuffle_of_its_seed():
    shuffled = stream("shuffle", 3).integers(0, 40, 40)
    (drawn,) = _draws(np.arange(40, dtype=np.int8)[:, None] % 2, 1, seed=3)
    assert drawn[:, 0].tolist() != np.bincount(shuffled, minlength=40).tolist()
