import pytest
import torch
from safetensors.torch import save_file

from mlbench.engine.checkpoint import Checkpoint, load
from mlbench.types import ModelInfo, Preprocessing, RunSpec, WeightsError
from tests.engine import tiny
from tests.store.made import damages


def made(weights):
    spec = RunSpec(
        method="gap", dataset="synthetic", data="d", track="controlled", settings=tiny.settings()
    )
    pixels = Preprocessing(mean=(0.1, 0.2, 0.3), std=(1, 1, 1), resize=20)
    names = ("cat", "ünïcode, label")
    return Checkpoint(weights, ModelInfo(spec=spec, label_names=names, preprocessing=pixels))


def test_it_comes_back_as_it_was(tmp_path):
    model = tiny.model()
    file = tmp_path / "runs" / "checkpoint.safetensors"
    made(model.state_dict()).save(file)
    (tmp_path / "plain").touch()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode, "others may read it"
    found = load(file)
    assert found.info == made({}).info
    other = tiny.model(seed=5)
    other.load_state_dict(found.weights)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(other.eval()(images).logits, model.eval()(images).logits)


def test_tensors_that_share_memory_are_kept(tmp_path):
    shared = torch.ones(3)
    made({"a": shared, "b": shared[:2], "c": shared.t()}).save(tmp_path / "c")
    found = load(tmp_path / "c").weights
    assert {name: len(value) for name, value in found.items()} == {"a": 3, "b": 2, "c": 3}


def test_no_damage_goes_unseen_or_ends_in_another_error(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    whole = made({"weight": torch.arange(40.0), "steps": torch.tensor(3)})
    whole.save(file)
    for damaged in damages(file.read_bytes(), 1000):
        file.write_bytes(damaged)
        try:
            found = load(file)
        except WeightsError as error:
            assert str(file) in str(error)
        else:  # the bit has no meaning, such as the case of a hexadecimal digit in an escape
            assert found.info == whole.info
            assert all(
                torch.equal(found.weights[name], whole.weights[name]) for name in whole.weights
            )


def test_a_folder_whose_name_is_not_utf8_is_to_be_renamed(tmp_path):
    made({"a": torch.ones(1)}).save(tmp_path / "c")
    (tmp_path / "c").rename(file := tmp_path / "\udcff")
    with pytest.raises(WeightsError, match="not UTF-8; rename the folder"):
        load(file)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match=r"x\.safetensors cannot be read"):
        load(file)
    file.write_bytes(b"junk")
    with pytest.raises(WeightsError, match=r"as a checkpoint .*; give a run's folder, its check"):
        load(file)
    save_file({"a": torch.ones(1)}, file)
    with pytest.raises(WeightsError, match="not a checkpoint of mlbench"):
        load(file)
