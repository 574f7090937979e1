"""Whoever reads a file finds all of it; whoever fails to write one leaves nothing."""

import errno
from pathlib import Path

import pytest
import torch
from PIL import Image

from mlbench.data.decode import problems
from mlbench.engine.checkpoint import Checkpoint
from mlbench.files import atomic_write, temporary
from mlbench.types import Preprocessing, RunSpec, Settings, SplitCoverage, StoreError
from mlbench_tools.fetch.image_check import ImageCheck
from mlbench_tools.fetch.image_check import write as write_check


def test_a_file_has_its_name_when_it_is_whole_and_its_writer_did_not_fail(tmp_path):
    file = tmp_path / "new" / "a.txt"
    with atomic_write(file) as part:
        part.write_text("first")
        assert not file.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(file) as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert file.read_text() == "first" and list(file.parent.iterdir()) == [file]


def decoded(folder):
    Image.new("RGB", (4, 4)).save(folder / "image.png")
    problems([folder / "image.png"], folder / "written", 1)


def covered(folder):
    part = SplitCoverage(images=1, usable=1, missing=0, corrupt=0, official=1)
    check = ImageCheck(
        dataset="d",
        identity="d-1",
        known=True,
        digest="0" * 16,
        usable=1,
        splits={"test": part},
        bad=(),
    )
    write_check(check, folder / "written", folder / "written")


def saved(folder):
    spec = RunSpec(
        method="gap", dataset="d", data="d", track="controlled", settings=Settings(head="gap")
    )
    made = Checkpoint({"a": torch.ones(2)}, spec, ("cat",), Preprocessing())
    made.save(folder / "written" / "checkpoint.safetensors")


@pytest.mark.parametrize("write", [decoded, covered, saved])
def test_a_writer_that_fails_leaves_nothing(write, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    names = []
    monkeypatch.setattr("mlbench.files.temporary", lambda f: names.append(f) or temporary(f))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        try:
            write(tmp_path)
        except (OSError, StoreError) as error:
            assert "No space left" in str(error)
    assert names and not [left for left in tmp_path.rglob("written/**/*") if left.is_file()]
    write(tmp_path)
    assert [file.name for file in (tmp_path / "written").rglob("*") if file.is_file()] == [
        names[-1].name
    ]
