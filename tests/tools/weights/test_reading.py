"""Files from elsewhere: what may be in them is read, what would run is refused by name."""

import argparse
import os
import pickle
import re
from collections import OrderedDict
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mlbench.types import WeightsError
from mlbench_tools.weights.reading import read, state_dict

WEIGHTS = {"module.a": torch.arange(6.0).view(2, 3), "module.b": torch.nn.Parameter(torch.ones(2))}


class Trap:
    """Leaves a file behind where it is unpickled as it asks."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


class Sneaky:
    """Reaches for something harmful through a module that is otherwise allowed."""

    def __reduce__(self):
        return torch.load, ("anything",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_settings_in_it_is_read(tmp_path, zipped):
    file = tmp_path / "model.pth.tar"
    content = {
        "state_dict": OrderedDict(WEIGHTS),
        "args": argparse.Namespace(lr=0.1, names=["x"], log=PurePosixPath("/log")),
        "best": np.float64(83.5),
        "rows": np.arange(3.0),
        "words": np.array(["a", None], dtype=object),
        "epoch": 3,
    }
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    found = read(file)
    assert found["epoch"] == 3 and found["best"] == 83.5 and found["words"][0] == "a"
    assert not hasattr(found["args"], "lr")
    key, state = state_dict(file, found)
    assert key == "state_dict" and torch.equal(state["module.a"], WEIGHTS["module.a"])


def test_paths_are_read_as_python_3_13_writes_them(tmp_path):
    content = pickle.dumps({"log": PurePosixPath("/log"), "epoch": 3}, protocol=2)
    file = tmp_path / "log.pkl"
    file.write_bytes(re.sub(rb"cpathlib\S*", b"cpathlib._local", content))
    assert read(file)["epoch"] == 3


@pytest.mark.parametrize("write", ["zip", "legacy", "pickle"])
def test_a_file_that_would_run_something_is_refused_by_name(tmp_path, write):
    file, place = tmp_path / "model.pth", tmp_path / "made by the file"
    content = {"state_dict": WEIGHTS, "extra": Trap(place)}
    if write == "pickle":
        file.write_bytes(pickle.dumps({"extra": Trap(place)}))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=write == "zip")
    with pytest.raises(WeightsError, match=r"model\.pth: refused, it would call posix\.mkdir"):
        read(file)
    assert not place.exists()


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Sneaky(), r"torch\.serialization\.load"),
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        (getattr, r"__builtin__\.getattr"),
    ],
)
def test_a_name_that_is_not_a_container_is_refused(tmp_path, thing, name):
    file = tmp_path / "model.pth"
    torch.save({"state_dict": WEIGHTS, "thing": thing}, file)
    with pytest.raises(WeightsError, match=f"it would call {name}"):
        read(file)


def test_bytes_are_decoded_by_plain_codecs_only(tmp_path):
    file = tmp_path / "bomb.pkl"
    file.write_bytes(b"c_codecs\nencode\n(Vpayload\nVzip\ntR.")
    with pytest.raises(WeightsError, match=r"_codecs\.encode with 'zip'"):
        read(file)


@pytest.mark.parametrize("content", ["zip", "legacy", b"", b"<html>not found</html>\n" * 9])
def test_a_truncated_file_or_no_checkpoint_is_refused(tmp_path, content):
    file = tmp_path / "half.pth"
    if isinstance(content, str):
        torch.save({"a": torch.ones(5000)}, file, _use_new_zipfile_serialization=content == "zip")
        content = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"half\.pth: cannot be read, perhaps truncated"):
        read(file)
    with pytest.raises(WeightsError, match=r"none\.pth: no such file"):
        read(tmp_path / "none.pth")


@pytest.mark.parametrize("protocol", [0, 5])
def test_a_plain_pickle_of_arrays_is_read(tmp_path, protocol):
    file = tmp_path / "adj.pkl"
    file.write_bytes(pickle.dumps({"adj": np.eye(3), "nums": np.arange(3)}, protocol=protocol))
    found = read(file)
    np.testing.assert_array_equal(found["adj"], np.eye(3))
    assert found["nums"].tolist() == [0, 1, 2]


def test_other_containers_of_tensors(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    np.save(tmp_path / "a.npy", np.ones(2))
    for name in ("a.safetensors", "a.npz"):
        assert torch.equal(state_dict(name, read(tmp_path / name))[1]["a"].float(), torch.ones(2))
    assert read(tmp_path / "a.npy").tolist() == [1, 1]


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"model": {"a": "text"}}])
def test_a_file_without_tensors_is_refused(tmp_path, content):
    with pytest.raises(WeightsError, match="holds no state dict"):
        state_dict(tmp_path / "x", content)
