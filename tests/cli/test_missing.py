"""Manifests whose pictures are not all there, from the command line to the record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlbench.boards.rows import tables
from mlbench.store import Store

PICTURES = 30
TINY = ("--plugins", "gap", "--backbones", "timm:test_resnet", "--weights", "none")
TINY += ("--image-size", 32, "--epochs", 1, "--set", "workers=1")


def split(i):
    return "train" if i % 3 else "test"


def rows():
    return [{"image": f"{i:02}.png", "labels": ["ab"[i % 2]], "split": split(i)} for i in range(30)]


def draw(folder):
    """Thirty pictures, twenty of them to train on."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (PICTURES, 32, 32, 3), np.uint8)
    for i in range(PICTURES):
        Image.fromarray(pixels[i]).save(folder / f"{i:02}.png")
    return folder


def csv(folder):
    lines = [f"{row['image']},{row['labels'][0]},{row['split']}" for row in rows()]
    (folder / "photos.csv").write_text("\n".join(["image,labels,split", *lines]))
    return folder / "photos.csv"


def instances(folder):
    content = {
        "images": [{"id": i, "file_name": f"{i:02}.png"} for i in range(PICTURES)],
        "categories": [{"id": c, "name": "ab"[c]} for c in range(2)],
        "annotations": [{"image_id": i, "category_id": i % 2} for i in range(PICTURES)],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def yolo(folder):
    for i in range(PICTURES):
        image = folder / "images" / split(i) / f"{i:02}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        (folder / image.name).rename(image)
        label = folder / "labels" / split(i) / f"{i:02}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{i % 2} .5 .5 1 1\n")
    text = "names: [a, b]\ntrain: images/train\ntest: images/test\n"
    (folder / "data.yaml").write_text(text)
    return folder / "data.yaml"


@pytest.mark.parametrize("form", [csv, instances, yolo])
def test_a_manifest_runs_without_pictures_that_are_missing_when_asked_to(cli, tmp_path, form):
    source = form(draw(tmp_path / "photos"))
    run = ("run", *TINY, "--datasets", f"manifest:{source}")
    for number in (4, 6):
        (file,) = source.parent.rglob(f"{number:02}.png")
        file.unlink()
    refused = cli(*run)
    assert refused.code == 2 and not Store(Path("results")).records()
    said = refused.err.replace("\n", "")
    assert "2 of 30 pictures" in said
    ended = cli(*run, "--set", "allow_missing=true")
    assert ended.code == 0, ended.err
    (record,) = Store(Path("results")).records()
    splits = record.coverage.splits
    assert sum(part.missing for part in splits.values()) == 2 and record.coverage.known
    assert sum(part.images for part in splits.values()) == PICTURES
    assert record.train_images + record.test_images == PICTURES - 2
    if form is not instances:  # that is parted by a hash
        assert (splits["train"].missing, splits["test"].missing) == (1, 1)
    assert record.spec.incomplete and not record.complete
    assert f"-incomplete-{record.spec.data}" in record.identity
    assert len(tables([record])) == 1 and not tables([record])[0].known
    assert "Nothing is missing" in cli(*run, "--set", "allow_missing=true").out


def test_a_manifest_of_which_nothing_is_there(cli, tmp_path):
    source = csv(draw(tmp_path / "photos"))
    for file in source.parent.glob("*.png"):
        file.unlink()
    ended = cli("run", *TINY, "--datasets", f"manifest:{source}", "--set", "allow_missing=true")
    assert ended.code == 2 and "none of the images of its train split can be used" in ended.err


def test_verify_names_the_missing_pictures_of_a_manifest(cli, tmp_path):
    source = csv(draw(tmp_path / "photos"))
    (source.parent / "05.png").unlink()
    told = cli("data", "verify", f"manifest:{source}", "--json")
    assert told.code == 1
    found = json.loads(told.out)
    assert [(bad["key"], bad["problem"]) for bad in found["bad"]] == [("05.png", "missing")]
    assert cli("data", "stats", f"manifest:{source}").code == 0
