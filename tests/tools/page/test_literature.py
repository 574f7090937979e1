"""Results of the literature: their files, the cards that quote them, and our rows beside them."""

import pytest

from mlbench import registry
from mlbench.boards.rows import tables
from mlbench.store import Store
from mlbench.types import StoreError
from mlbench_tools.page.collect import Site
from mlbench_tools.page.derived import derive
from mlbench_tools.page.literature import FOLDER, literature_lines, load
from tests.store.made import made_predictions, made_record

PUBLISHED = load()
DASH = "\N{EN DASH}"
GOOD = """\
dataset: voc2007
boards: [voc2007]
sources:
  readme: README of the code
rows:
  - {method: ssgrl, backbone: resnet101, image_size: 576, pretraining: ImageNet-1k, protocol: ap,
     test_images: 4952, verified: {readme: {mAP: 93.4}}}
"""


@pytest.fixture
def read(tmp_path):
    """The text of a file -> the results in it."""

    def loaded(text):
        (tmp_path / "voc2007.yaml").write_text(text)
        return load(tmp_path)

    return loaded


BROKEN = {
    "no score": ((", verified: {readme: {mAP: 93.4}}", ""), r"row 0 \(ssgrl\) has no score"),
    "a metric": (("mAP: 93.4", "map: 93.4"), r"unknown metric 'map'; the metrics are mAP, CP"),
    "a protocol": (("ap,", "aap,"), r"rows\.0\.protocol.*unknown protocol 'aap'; did you mean"),
}


@pytest.mark.parametrize(("change", "said"), BROKEN.values(), ids=BROKEN)
def test_an_error_says_which_file_and_what_is_wrong(read, change, said):
    with pytest.raises(StoreError, match=r"(?s)voc2007\.yaml.*" + said):
        read(GOOD.replace(*change))


def test_every_score_of_a_card_is_quoted_from_the_files():
    """`page/published` is the source; what a card says otherwise is a mistake in one of them."""
    known = {
        (result.dataset.replace("2014", ""), result.method, score.metric, score.value, score.status)
        for result in PUBLISHED
        for score in result.scores
    }
    quoted = {
        (score.dataset, plugin.name, score.metric, score.value, score.status)
        for plugin in registry.plugins("recipe")
        for score in plugin.load().reported
    }
    assert len(quoted) > 20 and not quoted - known, "scores of cards that the files lack"


def test_data_sets_and_editions_are_known_and_no_result_stands_twice():
    plugins = {plugin.name for plugin in registry.plugins("dataset")}
    for result in PUBLISHED:
        card = registry.find("dataset", result.dataset).load().card
        sizes = {split.images for split in card.splits.values()}
        # The labels of VOC 2012's test split are on a server only.
        assert result.test_images in {None, *sizes} or result.dataset == "voc2012"
        assert set(result.boards) <= {*card.identities.values(), *plugins}
        assert not any("mini" in board for board in result.boards)
        metrics = [score.metric for score in result.scores]
        assert len(set(metrics)) == len(metrics), result
    measured = {"verified": {}, "secondary": {}, "gmacs": None}
    conditions = [result.model_copy(update=measured) for result in PUBLISHED]
    assert len({r.model_dump_json() for r in conditions}) == len(conditions)


def test_the_readme_counts_what_is_secondary():
    held = [{score.status for score in result.scores} for result in PUBLISHED]
    only, some = held.count({"secondary"}), sum("secondary" in statuses for statuses in held)
    text = " ".join((FOLDER / "README.md").read_text().split())
    assert f"Of the {len(held)} rows, {only} have only such scores and {some - only} more" in text


def record(identity="voc2007", images=4952, method="ssgrl", spec=None, **settings):
    return made_record(
        method,
        92.5,
        identity=identity,
        test_images=images,
        settings={"backbone": "resnet101", "image_size": 576, "loss": "bce"} | settings,
        spec={"track": "published", "dataset": "voc2007", **(spec or {})},
    )


def lines(published, ours, derived=None):
    site = Site(tables([ours]), {ours.run_id: ours}, published=published)
    return literature_lines(site, derived or {})


def test_a_row_of_ours_under_the_same_conditions_is_compared(read):
    ours = record()
    (line,) = lines(read(GOOD), ours)
    assert (line["mAP"], line["ours"], line["difference"]) == ("93.4", "92.50", "-0.90")
    assert line["run"] == f"run/{ours.run_id}.html" and line["page"] == "method/ssgrl.html"
    assert (line["status"], line["sources"]) == ("verified", ["README of the code"])


@pytest.mark.parametrize(
    "other",
    [
        {"method": "gap"},
        {"backbone": "resnet50"},
        {"image_size": 448},
        {"spec": {"track": "probe"}},
        {"identity": "voc2007-mini"},
        {"identity": "coco2017"},
        {"spec": {"labels": ("cat", "dog", "tv | monitor")}},
        {"spec": {"checkpoint": "sha256:0123456789abcdef"}},
        {"spec": {"init": "sha256:0123456789abcdef"}},
    ],
    ids=str,
)
def test_a_row_of_ours_under_other_conditions_is_not(read, other):
    (line,) = lines(read(GOOD), record(**other))
    assert line["run"] is None and line["difference"] == DASH


def test_a_result_under_other_conditions_is_not_compared(read):
    for key in ("extra_data: COCO", "labels_kept: half", "trained_at: 448", "loss: asl"):
        (line,) = lines(read(GOOD.replace("test_images:", f"{key}, test_images:")), record())
        assert line["run"] is None and line["difference"] == DASH


def test_a_result_by_another_protocol_is_compared_with_ours_by_the_same(read, tmp_path):
    published = read(GOOD.replace("protocol: ap", "protocol: ap-interpolated+difficult-negative"))
    ours, store = record(), Store(tmp_path)
    (line,) = lines(published, ours)
    assert line["run"] and (line["ours"], line["difference"]) == ("run", DASH)
    store.write(ours, made_predictions(n=40))
    derived = {ours.run_id: derive(store, ours, tmp_path / "cache")}
    mine = derived[ours.run_id].protocols["ap-interpolated+difficult-negative"]["mAP"]
    (line,) = lines(published, ours, derived)
    assert line["ours"] == f"{mine:.2f}" and line["difference"] == f"{mine - 93.4:+.2f}"
    (line,) = lines(read(GOOD.replace("protocol: ap", "protocol: null")), ours, derived)
    assert line["run"] and line["difference"] == DASH


def test_coco_2014_is_found_whatever_its_digest():
    ours = record("coco2014-unknown-0123456789abcdef", 40_504, spec={"dataset": "coco2014"})
    found = [line for line in lines(PUBLISHED, ours) if line["run"]]
    assert [(line["dataset"], line["method"]) for line in found] == [("coco2014", "ssgrl")]
