"""Counts of annotated objects, against slow counts from the files."""

from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.data.labels import label_context
from mlbench.data.noise import with_label_noise
from mlbench.data.open import Subset, open_splits
from mlbench.types import DataError, LabelNoise, PluginError
from mlbench_plugins.datasets.coco import COCO
from mlbench_plugins.datasets.instances import read_instances
from mlbench_plugins.datasets.voc import VOC2007
from mlbench_plugins.layers.label_graph import conditional_probability
from mlbench_tools.checks.dataset_checks import counts_its_objects
from tests.plugins.datasets import miniature
from tests.plugins.datasets.test_manifest import pictures, yolo

CATEGORIES = {1: "person", 18: "dog", 90: "cup"}
ANNOTATIONS = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(sorted(CATEGORIES))), min_size=1, max_size=40
)


def write_json(file, owners, images):
    names = {i: f"{i}.jpg" for i in reversed(images)}
    miniature.instances(file, names, owners, CATEGORIES)


@settings(max_examples=40)
@given(ANNOTATIONS)
def test_a_json_of_instances_is_counted_as_by_hand(tmp_path_factory, owners):
    file = tmp_path_factory.mktemp("json") / "instances.json"
    write_json(file, owners, range(1, 7))
    found = read_instances(file)
    by_hand = Counter(owners)
    wanted = [[by_hand[i, c] for c in sorted(CATEGORIES)] for i in range(1, 7)]
    assert found.objects.tolist() == wanted
    assert found.targets.tolist() == [[int(n > 0) for n in row] for row in wanted]


OWNERS = [(1, 1), (1, 1), (1, 1), (1, 18), (2, 1), (2, 18), (2, 18), (3, 90), (4, 1), (4, 90)]
"""Of train: image 1 has three persons and a dog."""


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "coco"
    for split, owners, images in (
        ("train", OWNERS, range(1, 7)),
        ("val", [(9, 1)] * 100, range(9, 11)),
    ):
        write_json(root / "annotations" / f"instances_{split}2017.json", owners, images)
        (root / f"{split}2017").mkdir()
    return root


def labels_context(splits):
    return label_context(splits.train, splits.names, objects=splits.objects)[0]


def counted(splits):
    """Objects of the training images by name, as heads are told."""
    context = labels_context(splits)
    return dict(zip(context.names, context.objects.tolist(), strict=True))


def coco_splits(root, **part):
    return open_splits("coco", {}, root, root.parent / "cache", Subset(**part))


def test_the_context_counts_the_objects_of_train_alone(coco):
    assert counted(coco_splits(coco)) == {"person": 5, "dog": 3, "cup": 2}
    assert counted(coco_splits(coco, labels=["cup", "person"])) == {"cup": 2, "person": 5}


@pytest.mark.parametrize("part", [{"validation": True}, {"holdout": 0.5}])
def test_what_is_held_out_is_not_counted(coco, part):
    splits = coco_splits(coco, **part)
    keys = set(splits.train.keys)
    trained = Counter(CATEGORIES[c] for i, c in OWNERS if str(i) in keys)
    assert 0 < sum(trained.values()) < len(OWNERS)
    assert counted(splits) == {name: trained[name] for name in splits.names}


def test_labels_that_were_hidden_or_flipped_say_nothing_of_objects(coco):
    for noise in (LabelNoise(keep=0.5), LabelNoise(flip=0.1), LabelNoise(single_positive=True)):
        with pytest.raises(PluginError, match=r"on purpose; count images"):
            counted(with_label_noise(coco_splits(coco), noise))
    assert counted(with_label_noise(coco_splits(coco), LabelNoise()))["person"] == 5


def test_a_json_of_a_manifest_counts_its_instances(tmp_path):
    write_json(tmp_path / "own.json", OWNERS, range(1, 41))
    pictures(tmp_path, (f"{i}.jpg" for i in range(1, 41)))
    splits = open_splits(f"manifest:{tmp_path / 'own.json'}", {}, None, tmp_path / "cache")
    keys = set(splits.train.keys)
    trained = Counter(CATEGORIES[c] for i, c in OWNERS if f"{i}.jpg" in keys)
    assert sum(trained.values()) > 4
    assert counted(splits) == {name: trained[name] for name in splits.names}


def test_yolo_counts_lines(tmp_path):
    boxes = [("train", "0 0 0 1 1\n" * 2), ("train", "1 0 0 1 1\n" * 3), ("val", "")]
    yolo(tmp_path, "names: [a, b]\ntrain: images/train\nval: images/val\n", boxes)
    splits = open_splits(f"manifest:{tmp_path / 'data.yaml'}", {}, None, tmp_path / "cache")
    assert counted(splits) == {"a": 2, "b": 3}


OBJECTS = {
    "000001": [("dog", 0), ("dog", 0), ("dog", 1), ("cat", 1)],
    "000002": [("dog", 1), ("dog", 1), ("cat", 0)],
    "000003": [],
}


def annotation(objects):
    items = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        "<part><name>head</name></part></object>"
        for name, difficult in objects
    )
    return f"<annotation><folder>VOC2007</folder>{items}</annotation>"


@pytest.fixture
def voc(tmp_path):
    parts = {"trainval": list(OBJECTS), "test": ["000009"]}
    states = {"dog_trainval": [1, 0, 1], "cat_trainval": [-1, 1, -1]}
    root = miniature.voc_lists(tmp_path / "VOC2007", parts, states)
    (root / "Annotations").mkdir()
    for key, objects in OBJECTS.items():
        (root / "Annotations" / f"{key}.xml").write_text(annotation(objects))
    return root


@pytest.mark.parametrize(
    ("difficult", "dogs", "cats"),
    # the list says that 000003 has a dog: one, then; a cat that is difficult is absent in 000001
    [("unknown", 2 + 1, 1), ("negative", 2 + 1, 1), ("positive", 3 + 2 + 1, 1)],
)
def test_objects_of_voc_follow_what_its_lists_say(voc, difficult, dogs, cats):
    splits = open_splits("voc2007", {"difficult_train": difficult}, voc, voc)
    found = counted(splits)
    assert (found["dog"], found["cat"], sum(found.values())) == (dogs, cats, dogs + cats)
    assert all(
        n >= p for n, p in zip(found.values(), labels_context(splits).positives, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"000002\.xml is missing; its objects need the folder .*Annotations"),
        (annotation([("unicorn", 0)]), r"000002\.xml has an object 'unicorn', which is no class"),
    ],
)
def test_wrong_annotations_of_voc_stop_only_who_counts_objects(voc, text, message):
    file = voc / "Annotations" / "000002.xml"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    splits = open_splits("voc2007", {}, voc, voc)
    assert conditional_probability(labels_context(splits)).shape == (20, 20)
    with pytest.raises(DataError, match=message):
        counted(splits)


def edges(context):
    """How many edges the label graph has by images, and by objects."""
    probabilities = (conditional_probability(context, counts) for counts in ("images", "objects"))
    return [int((probability >= 0.4).sum()) for probability in probabilities]


def test_real_voc_is_counted_as_by_hand(real_data, tmp_path):
    splits = open_splits("voc2007", {}, real_data, tmp_path)
    by_hand = Counter()
    for key, target in zip(splits.train.keys, splits.train.targets, strict=True):
        file = real_data / "VOCdevkit" / "VOC2007" / "Annotations" / f"{key}.xml"
        found = Counter(item.findtext("name") for item in ElementTree.parse(file).iter("object"))
        for name, state in zip(splits.names, target, strict=True):
            by_hand[name] += max(found[name], 1) if state == 1 else 0
    assert counted(splits) == {name: by_hand[name] for name in splits.names}
    by_images, by_objects = edges(labels_context(splits))
    assert 0 < by_objects < by_images


@pytest.mark.parametrize(
    ("data_set", "folder"), [(COCO, "coco-mini"), (VOC2007, ".")], ids=["coco", "voc2007"]
)
def test_real_objects_keep_the_contract(real_data, data_set, folder):
    counts_its_objects(lambda _, cache: data_set(real_data / folder, cache))


INSTANCES_2017 = (
    *(257253, 7056, 43533, 8654, 5129, 6061, 4570, 9970, 10576, 12842, 1865, 1983, 1283, 9820),
    *(10542, 4766, 5500, 6567, 9223, 8014, 5484, 1294, 5269, 5128, 8714, 11265, 12342, 6448),
    *(6112, 2681, 6623, 2681, 6299, 8802, 3273, 3747, 5536, 6095, 4807, 24070, 7839, 20574),
    *(5474, 7760, 6159, 14323, 9195, 5776, 4356, 6302, 7261, 7758, 2884, 5807, 7005, 6296),
    *(38073, 5779, 8631, 4192, 15695, 4149, 5803, 4960, 2261, 5700, 2854, 6422, 1672, 3334),
    *(225, 5609, 2634, 24077, 6320, 6577, 1464, 4729, 198, 1945),
)
"""Instances of train2017 by category, crowds left out, as Detectron2 logs them: 849,949."""


def test_on_coco_the_edges_that_the_authors_have_remain(official_coco):
    objects_C = np.array(INSTANCES_2017)
    names = COCO.card.orders["official"]
    context, _ = label_context(official_coco[0], names, objects=lambda _: objects_C)
    assert edges(context) == [112, 35], "111 on COCO 2014"
