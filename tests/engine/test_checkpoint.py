import pytest
import torch
from safetensors.torch import save_file

from mlbench.engine.checkpoint import Checkpoint, load
from mlbench.types import Preprocessing, RunSpec, WeightsError
from tests.engine import tiny


def made(weights):
    spec = RunSpec(
        method="gap", dataset="synthetic", data="d", track="controlled", settings=tiny.settings()
    )
    pixels = Preprocessing(mean=(0.1, 0.2, 0.3), std=(1, 1, 1), resize=20)
    return Checkpoint(weights, spec, ("cat", "ünïcode, label"), pixels)


def test_it_comes_back_as_it_was(tmp_path):
    model = tiny.model()
    file = tmp_path / "runs" / "checkpoint.safetensors"
    made(model.state_dict()).save(file)
    found = load(file)
    assert found.spec == made({}).spec and found.label_names == ("cat", "ünïcode, label")
    assert found.preprocessing == made({}).preprocessing
    other = tiny.model(seed=5)
    other.load_state_dict(found.weights)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(other.eval()(images).logits, model.eval()(images).logits)


def test_tensors_that_share_memory_are_kept(tmp_path):
    shared = torch.ones(3)
    made({"a": shared, "b": shared[:2], "c": shared.t()}).save(tmp_path / "c")
    assert {name: len(value) for name, value in load(tmp_path / "c").weights.items()} == {
        "a": 3,
        "b": 2,
        "c": 3,
    }


def test_what_is_no_checkpoint_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match=r"x\.safetensors cannot be read"):
        load(file)
    file.write_bytes(b"junk")
    with pytest.raises(WeightsError, match="cannot be read as a checkpoint"):
        load(file)
    save_file({"a": torch.ones(1)}, file)
    with pytest.raises(WeightsError, match="not a checkpoint of mlbench"):
        load(file)
