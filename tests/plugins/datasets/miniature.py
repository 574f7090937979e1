"""Small VOC, NUS-WIDE and VG500 whose files have the form of the official ones."""

import json

import numpy as np
from PIL import Image

from mlbench_plugins.datasets.nuswide import NAMES
from mlbench_plugins.datasets.voc import VOC2007

FOLDERS = ("actor", "zoo")
TRAIN, TEST = 18, 10
NUS_KEYS = [
    f"{FOLDERS[i % 2]}/{i // 2 + 1:04d}_{2124494179 + 7919 * i}.jpg" for i in range(TRAIN + TEST)
]
"""A folder a query, a running number and Flickr's number of the photo."""
VG_TRAIN, VG_TEST = 12, 8


def photo(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")


def instances(file, names, owners, categories):
    """A json of instances.

    Args:
        names: files by image id, in the order of the json.
        owners: image and category id of each annotation; every second one is of a crowd.
        categories: names by category id, in the order of the json.
    """
    marks = [{"id": n, "image_id": i, "category_id": c} for n, (i, c) in enumerate(owners)]
    content = {
        "images": [{"id": i, "file_name": name} for i, name in names.items()],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
        "annotations": [{**mark, "iscrowd": mark["id"] % 2} for mark in marks],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def voc_lists(folder, parts, states):
    """ImageSets/Main of these images by part.

    Args:
        folder: such as VOC2007.
        parts: the images of a part, such as ``trainval``.
        states: by label and part, as in ``dog_test``: 1, 0 or -1 of each image; otherwise -1.
    """
    main = folder / "ImageSets" / "Main"
    main.mkdir(parents=True, exist_ok=True)
    for name in VOC2007.names:
        for part, keys in parts.items():
            of_images = states.get(f"{name}_{part}", [-1] * len(keys))
            lines = [f"{key} {state:2}\n" for key, state in zip(keys, of_images, strict=True)]
            (main / f"{name}_{part}.txt").write_text("".join(lines))
    return folder


def voc2007(folder):
    """Three training images and one test image; image 7 shows a dog, others perhaps an animal."""
    parts = {"trainval": ["000003", "000001", "000007"], "train": ["000003"], "test": ["000002"]}
    return voc_lists(folder, parts, {"dog_trainval": [-1, 0, 1], "cat_test": [0]})


def voc2012(folder):
    """Five images; 2008_000008 shows a dog, and perhaps a cat."""
    train, val = ["2008_000008", "2011_003276"], ["2007_000032", "2009_000001", "2010_000002"]
    parts = {"train": train, "val": val, "trainval": train + val}
    return voc_lists(folder, parts, {"dog_train": [1, -1], "cat_train": [0, -1]})


def nus_labels():
    """0/1 [images, 81]; every third image has no label, the last two labels have no positive."""
    labels = (np.random.default_rng(1).random((TRAIN + TEST, len(NAMES))) < 0.3).astype(int)
    labels[::3] = 0
    labels[:, -2:] = 0
    return labels


def write(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def nus_photos(root):
    for i, key in enumerate(NUS_KEYS):
        photo(root / "Flickr" / key, i)


def nus_official(root):
    """Train and test alternate in the list of all, as they do in the official one."""
    paths, labels = [key.replace("/", "\\") for key in NUS_KEYS], nus_labels()
    order = np.random.default_rng(2).permutation(len(paths))
    rows = {"Train": np.sort(order[:TRAIN]), "Test": np.sort(order[TRAIN:])}
    write(root / "ConceptsList" / "Concepts81.txt", NAMES)
    write(root / "ImageList" / "Imagelist.txt", paths)
    for part, chosen in rows.items():
        write(root / "ImageList" / f"{part}Imagelist.txt", [paths[i] for i in chosen])
    truth = root / "Groundtruth"
    for c, name in enumerate(NAMES):
        write(truth / "AllLabels" / f"Labels_{name}.txt", labels[:, c])
        for part, chosen in rows.items():
            write(truth / "TrainTestLabels" / f"Labels_{name}_{part}.txt", labels[chosen, c])
    return root


def nus_table(root, header=True):
    """Images without a label are left out, as they are in the published table."""
    lines = ["filepath,label,split_name"] if header else []
    for i, (key, row) in enumerate(zip(NUS_KEYS, nus_labels(), strict=True)):
        if row.any():
            listed = [NAMES[c] for c in np.flatnonzero(row)]
            path = "Flickr\\" + key.replace("/", "\\")
            lines.append(f'{path},"{listed}",{"val" if i % 4 == 1 else "train"}')
    write(root / "nus_wid_data.csv", lines)
    return root


def vg500(root):
    names = [f"{2390000 + 37 * i}.jpg" for i in range(VG_TRAIN + VG_TEST)]
    rng = np.random.default_rng(3)
    labels = {name: sorted(rng.choice(500, 13, replace=False).tolist()) for name in names}
    root.mkdir(parents=True, exist_ok=True)
    (root / "train_list_500.txt").write_text("\n".join(names[:VG_TRAIN]) + "\n")
    (root / "test_list_500.txt").write_text("\n".join(names[VG_TRAIN:]) + "\n")
    (root / "vg_category_500_labels_index.json").write_text(json.dumps(labels))
    for i, name in enumerate(names):
        photo(root / ("VG_100K" if i % 2 else "VG_100K_2") / name, i)
    return root
