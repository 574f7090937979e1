"""What the authors' own meters gave."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

PARITY = Path(__file__).parent.parent / "parity"


@pytest.fixture(scope="session")
def published():
    """Scores, targets without and with unknowns, and the expected arrays."""
    told = json.loads((PARITY / "parity.json").read_text())
    inputs = told["fixtures"]["metrics"]["inputs"]

    def generator(name):
        return np.random.default_rng(zlib.crc32((told["salt"] + inputs[name][1]).encode()))

    shape = tuple(inputs["scores"][2])
    targets = (generator("targets").random(shape) < 0.2).astype(np.int8)
    scores = generator("scores").standard_normal(shape) + 1.2 * targets
    partly = np.where(generator("difficult").random(shape) < 0.05, -1, targets).astype(np.int8)
    with np.load(PARITY / "parity.npz") as arrays:
        names = [name for name in arrays.files if name.startswith("metrics/")]
        expected = {name.removeprefix("metrics/"): arrays[name] for name in names}
    return scores, targets, partly, expected
