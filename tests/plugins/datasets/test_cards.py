"""What the cards of the data sets say, as far as it can be told without their files."""

import numpy as np
import pytest

from mlbench import registry
from mlbench.tracks import for_dataset
from mlbench.types import SplitCard
from tests.given import path_of

LISTED = [plugin for plugin in registry.plugins("dataset") if plugin.distribution == "mlbench-mlic"]
BENCHMARKS = ("voc2007", "voc2012", "coco", "coco2014", "coco2017", "nuswide", "vg500")


def card(name):
    return registry.find("dataset", name).load().card


@pytest.mark.parametrize("plugin", LISTED, ids=lambda plugin: plugin.name)
def test_orders_are_orders_of_the_same_labels(plugin):
    factory = plugin.load()
    said = factory.card
    for names in said.orders.values():
        assert sorted(names) == sorted(next(iter(said.orders.values())))
        assert len(set(names)) == len(names) == said.labels
    names = getattr(factory, "names", None)
    assert names is None or not said.orders or said.orders["official"] == names


def test_sizes_that_are_known():
    """Others are in ``tests/tools/fetch/test_official_sizes.py``."""
    vg, voc, nus = (card(name).splits for name in ("vg500", "voc2012", "nuswide"))
    assert (vg["train"].images, vg["test"].images) == (82_904, 10_000)
    assert voc["train"].images + voc["test"].images == voc["the list trainval"].images
    (unsure,) = (name for name in nus if name.startswith("test by original"))
    assert nus["train by original"].images + nus[unsure].images == 269_648
    assert nus["train by single_positive"] == SplitCard(images=150_000)
    assert nus["test by single_positive"] == SplitCard(images=60_260)


def test_families():
    families = {name: card(name).family for name in BENCHMARKS}
    coco = dict.fromkeys(("coco", "coco2014", "coco2017"), "coco")
    assert families == {**dict.fromkeys(BENCHMARKS, ""), **coco, "voc2012": "voc2007"}


@pytest.mark.parametrize("method", ["ssgrl", "csra", "ml_gcn", "msrn"])
def test_what_authors_do_with_voc_they_do_in_both_years(method):
    table = registry.find("recipe", method).load().dataset_options
    assert for_dataset(table, "voc2012") == for_dataset(table, "voc2007") != {}


@pytest.mark.parametrize("name", ["coco", "nuswide", "voc2007"])
def test_the_labels_are_those_that_others_have(name):
    with np.load(path_of("WORDS", "label_words.npz")) as held:
        names = held[f"{name}/names"].tolist()
    said = card(name)
    assert sorted(names) == sorted(said.orders["official"])
    if name == "coco":
        assert tuple(names) == said.orders["alphabetical"]
