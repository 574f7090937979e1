"""One small set of pictures in the layout of each tool says the same labels."""

import csv
import json
from pathlib import Path

import pytest

from mlbench.types import DataError
from tests.plugins.datasets import miniature
from tests.plugins.datasets.test_manifest import folder, labels_of, opened, pictures, sides

__all__ = ["folder"]

NAMES = ["newt", "otter", "sea tern"]
TRAIN = {"a.jpg": ["newt", "otter"], "b c.jpg": ["otter"], "c.jpg": []}
TEST = {"d.jpg": ["sea tern", "newt"], "e.jpg": ["sea tern"], "f.jpg": ["otter"]}
SPLITS = {"train": TRAIN, "valid": TEST}
ALL = TRAIN | TEST


def write(file, content):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    Path(file).write_text(text, encoding="utf-8")


def rows(file, lines):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with Path(file).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)


def states(labels):
    return [int(name in labels) for name in NAMES]


def label_studio(field="image"):
    def task(number, image, labels):
        value = {"choices": labels}
        result = [{"from_name": "kind", "to_name": "image", "type": "choices", "value": value}]
        done = {"id": 10, "result": result if labels else [], "was_cancelled": False}
        path = f"/data/upload/1/0a1b2c3d-{image.replace(' ', '%20')}"
        return {"id": number, "data": {"shop": "A", field: path}, "annotations": [done]}

    tasks = [task(i, image, labels) for i, (image, labels) in enumerate(ALL.items())]
    write("export.json", [*tasks, {"id": 9, "data": {field: "x.jpg"}, "annotations": []}])
    return "export.json"


def label_studio_min():
    def task(image, labels):
        kind = {"kind": labels[0] if len(labels) == 1 else {"choices": labels}} if labels else {}
        path = f"/data/local-files/?d=images/{image}"
        own = {"id": 1, "annotator": 1, "annotation_id": 2, "lead_time": 1.5}
        return {"image": path, **own, **kind, "created_at": "2024", "updated_at": "2024"}

    write("min.json", [task(*item) for item in ALL.items()])
    return "min.json"


def label_studio_csv():
    cells = [
        json.dumps({"choices": labels}) if len(labels) > 1 else "".join(labels)
        for labels in ALL.values()
    ]
    head = ["annotation_id", "annotator", "choice", "created_at", "id", "image", "lead_time"]
    lines = [
        [1, 1, cell, "2024", 5, f"/data/upload/1/0a1b2c3d-{image}", 2.5]
        for image, cell in zip(ALL, cells, strict=True)
    ]
    rows("studio.csv", [[*head, "updated_at"], *([*line, "2024"] for line in lines)])
    return "studio.csv"


def roboflow():
    for split, images in SPLITS.items():
        pictures(Path("set"), (f"{split}/{image}" for image in images))
        lines = [[image, *states(labels)] for image, labels in images.items()]
        rows(f"set/{split}/_classes.csv", [["filename", *(f" {n}" for n in NAMES)], *lines])
    return "set"


def image_folder(name):
    for split, images in SPLITS.items():
        pictures(Path("set"), (f"{split}/{image}" for image in images))
        if name.endswith(".jsonl"):
            lines = ({"file_name": i, "labels": labels} for i, labels in images.items())
            write(f"set/{split}/{name}", "\n".join(map(json.dumps, lines)))
        else:
            lines = [[image, "|".join(labels)] for image, labels in images.items()]
            rows(f"set/{split}/{name}", [["file_name", "labels"], *lines])
    return "set"


def image_folder_with_one_table():
    lines = []
    for split, images in SPLITS.items():
        pictures(Path("set"), (f"{split}/{image}" for image in images))
        lines += [{"file_name": f"{split}/{i}", "tags": labels} for i, labels in images.items()]
    write("set/metadata.jsonl", "\n".join(map(json.dumps, lines)))
    return "set"


def row_a_label():
    lines = [[image, name, 1] for image, labels in ALL.items() for name in labels]
    rows("long.csv", [["ImageID", "LabelName", "Confidence"], *lines, ["c", "otter", 0]])
    return "long.csv"


def numbered():
    lines = [[image, *[*labels, "", ""][:2]] for image, labels in ALL.items()]
    rows("numbered.csv", [["file", "label1", "label2"], *lines])
    return "numbered.csv"


def path_and_states():
    lines = (f"{image} {' '.join(map(str, states(labels)))}" for image, labels in ALL.items())
    write("database.txt", "\n".join(lines))
    return "database.txt"


def yolo_lists():
    for split, images in SPLITS.items():
        pictures(Path("set"), (f"images/{image}" for image in images))
        write(f"set/{split}.txt", "".join(f"./images/{image}\n" for image in images))
        for image, labels in images.items():
            boxes = (f"{NAMES.index(name)} .5 .5 .2 .2\n" for name in labels)
            write(f"set/labels/{Path(image).stem}.txt", "".join(boxes))
    write("set/data.yaml", json.dumps({"names": NAMES, "train": "train.txt", "val": "valid.txt"}))
    return "set/data.yaml"


def cvat():
    images = "".join(
        f'<image id="{i}" name="{image}" subset="{split}" width="9" height="9">'
        + "".join(f'<tag label="{name}" source="manual"></tag>' for name in labels)
        + "</image>"
        for split, listed in SPLITS.items()
        for i, (image, labels) in enumerate(listed.items())
    )
    names = "".join(f"<label><name>{name}</name><type>tag</type></label>" for name in NAMES)
    meta = f"<meta><project><id>1</id><labels>{names}</labels></project></meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    write("annotations.xml", f"{head}{meta}{images}</annotations>")
    return "annotations.xml"


def datumaro():
    labels = [{"name": name, "parent": "", "attributes": []} for name in NAMES]
    items = [
        {
            "id": Path(image).stem,
            "annotations": [
                {"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": NAMES.index(n)}
                for n in found
            ],
            "attr": {"frame": 0},
            "image": {"path": image, "size": [9, 9]},
        }
        for image, found in ALL.items()
    ]
    categories = {"label": {"labels": labels, "attributes": []}}
    write("set/annotations/default.json", {"info": {}, "categories": categories, "items": items})
    pictures(Path("set/images/default"), ALL)
    return "set/annotations/default.json"


def fiftyone(objects=False):
    def written(labels):
        if not objects:
            return [NAMES.index(name) for name in labels]
        found = [{"_cls": "Classification", "label": name} for name in labels]
        return {"_cls": "Classifications", "classifications": found}

    pictures(Path("set/data"), ALL)
    labels = {Path(image).stem: written(found) for image, found in ALL.items()}
    rest = {} if objects else {"unlabeled": None}
    write("set/labels.json", {"classes": None if objects else NAMES, "labels": labels | rest})
    return "set/labels.json"


def deep_object_reid():
    write("all.json", {"images": [[i, found] for i, found in ALL.items()], "classes": NAMES})
    return "all.json"


def coco():
    listed = enumerate(ALL.values())
    owners = [(i, NAMES.index(name)) for i, labels in listed for name in labels]
    categories = dict(reversed([*enumerate(NAMES)]))
    miniature.instances(Path("instances.json"), dict(enumerate(ALL)), owners, categories)
    return "instances.json"


SPLIT_FORMS = {
    "roboflow": roboflow,
    "imagefolder jsonl": lambda: image_folder("metadata.jsonl"),
    "imagefolder csv": lambda: image_folder("metadata.csv"),
    "imagefolder one table": image_folder_with_one_table,
    "yolo lists": yolo_lists,
    "cvat": cvat,
}
FORMS = SPLIT_FORMS | {
    "label studio": label_studio,
    "label studio photo": lambda: label_studio("photo"),
    "label studio min": label_studio_min,
    "label studio csv": label_studio_csv,
    "a row a label": row_a_label,
    "label1, label2": numbered,
    "path 0 1 0": path_and_states,
    "datumaro": datumaro,
    "fiftyone": fiftyone,
    "fiftyone objects": lambda: fiftyone(objects=True),
    "deep-object-reid": deep_object_reid,
    "coco": coco,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_tools_export_says_the_same(folder, form):
    source = FORMS[form]()
    if not Path("set").exists():
        pictures(folder / "images", ALL)
    options = {"label_names": NAMES} if form == "path 0 1 0" else {}
    data = opened(source, test_share=0.5, **options)
    assert data.names == tuple(NAMES)
    assert data.missing() is None
    found = {file_of(data, key): labels for key, labels in labels_of(data).items()}
    assert found == {image: set(labels) for image, labels in ALL.items()}
    if form in SPLIT_FORMS:
        train, test = ({file_of(data, key) for key in side} for side in sides(data))
        assert (train, test) == ({*TRAIN}, {*TEST})
    facts = data.interpretation().facts
    assert {"labels", "split"} & facts.keys() or "form" in facts


def file_of(data, key):
    """The name of the picture of a key; keys are as written, files as they lie there."""
    files = (data.index(split) for split in ("train", "test"))
    return next(i.files[i.keys.index(key)].name for i in files if key in i.keys)


def test_what_an_export_does_not_say_is_told(folder):
    source = label_studio("photo")
    with pytest.raises(DataError, match=r"export.json: unknown 'phot' in .* did you mean photo"):
        opened(source, image_column="phot")
    tasks = json.loads(Path(source).read_text())
    tasks[0]["annotations"].append({**tasks[0]["annotations"][0], "result": []})
    write(source, tasks)
    pictures(folder / "images", ALL)
    data = opened(source, test_share=0.5, image_column="photo")
    assert data.missing() is None
    warnings = " ".join(data.interpretation().warnings)
    assert "1 task without an annotation left out" in warnings
    assert "1 task with annotations that differ: the first is taken" in warnings
    roboflow()
    pictures(folder / "set", ["train/extra.jpg"])
    assert "1 picture of the folder in no row: extra.jpg" in " ".join(
        opened("set").interpretation().warnings
    )
    rows("set/valid/_classes.csv", [["filename", "newt"], ["d.jpg", 1]])
    with pytest.raises(DataError, match="its columns are others than those of"):
        opened("set")
