"""Thirty made-up pictures of two labels, described in every form that a manifest may have."""

import json

import numpy as np
from PIL import Image

PICTURES, TRAIN = 30, 20
TINY = ("--plugins", "gap", "--backbones", "timm:test_resnet", "--weights", "none")
TINY += ("--image-size", 32, "--epochs", 1, "--set", "workers=1", "--set", "measure=false")
"""Flags of a run that takes a second."""


def split(i):
    return "train" if i % 3 else "test"


def draw(i, folder):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{i:02}.png")


def table(root):
    rows = ["image,labels,split"]
    for i in range(PICTURES):
        draw(i, root / "images")
        rows.append(f"{i:02}.png,{'ab'[i % 2]},{split(i)}")
    (root / "photos.csv").write_text("\n".join(rows))
    return root / "photos.csv"


def instances(root):
    for i in range(PICTURES):
        draw(i, root / "images")
    content = {
        "images": [{"id": i, "file_name": f"{i:02}.png"} for i in range(PICTURES)],
        "categories": [{"id": c, "name": "ab"[c]} for c in range(2)],
        "annotations": [{"image_id": i, "category_id": i % 2} for i in range(PICTURES)],
    }
    (root / "coco.json").write_text(json.dumps(content))
    return root / "coco.json"


def folders(root):
    for i in range(PICTURES):
        draw(i, root / split(i) / "ab"[i % 2])
    return root


def yolo(root):
    for i in range(PICTURES):
        draw(i, root / "images" / split(i))
        label = root / "labels" / split(i) / f"{i:02}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{i % 2} .5 .5 1 1\n")
    (root / "data.yaml").write_text("names: [a, b]\ntrain: images/train\ntest: images/test\n")
    return root / "data.yaml"
