"""The literature's scores: their files, their agreement with the cards, and where they stand."""

from pathlib import Path

import pytest

from mlbench import registry
from mlbench.boards.rows import tables
from mlbench.types import StoreError
from mlbench_tools.page import tiers
from mlbench_tools.page.facts import NONE
from mlbench_tools.page.literature import lines
from mlbench_tools.page.published import PublishedError, load
from mlbench_tools.page.tiers import beside
from tests.store.made import made_record

FOLDER = Path(__file__).parents[3] / "results" / "published"
PUBLISHED = load(FOLDER)
GOOD = """\
dataset: voc2007
boards: [voc2007]
sources:
  readme: README of the code
rows:
  - {method: ssgrl, backbone: resnet101, image_size: 576, pretraining: ImageNet-1k, protocol: ap,
     test_images: 4952, verified: {readme: {mAP: 93.4}}}
"""


def write(folder, text, name="voc2007.yaml"):
    (folder / name).write_text(text)
    return folder


def test_what_a_file_says_is_what_is_loaded(tmp_path):
    (row,) = load(write(tmp_path, GOOD))
    assert (row.dataset, row.method, row.image_size, row.line) == ("voc2007", "ssgrl", 576, 6)
    score = row.score("mAP")
    assert (score.value, score.status, score.source) == (93.4, "verified", "README of the code")
    assert row.score("CF1") is None and row.extra_data == ""


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert load(tmp_path / "none") == ()


ROW = GOOD[GOOD.index("  - {") :]
BROKEN = {
    "not verified": (("verified:", "unverified:"), r"line 6: unverified: .*keys are .*verified"),
    "no score": ((", verified: {readme: {mAP: 93.4}}", ""), r"no row has source readme"),
    "a metric": (("mAP: 93.4", "map: 93.4"), r"line 6: metric 'map' is none of mAP, CP"),
    "over 100": (("93.4", "934"), r"line 6: verified.readme.mAP = 934: .*less than or equal"),
    "a text": (("93.4", "'93.4'"), r"line 6: verified.readme.mAP = '93.4': .*number"),
    "a source": (("{readme: {", "{paper: {"), r"no row has source readme"),
    "a key": (("backbone:", "backbon:"), r"line 6: backbone: Field required; keys are method"),
    "a protocol": (("ap,", "aap,"), r"line 6: unknown protocol 'aap'; did you mean ap"),
    "the size": (("576", "big"), r"line 6: image_size = 'big': .*integer"),
    "the name": (("dataset: voc2007", "dataset: voc"), r"of dataset 'voc'; give both one name"),
    "the head": (("boards: [voc2007]", ""), r"boards: Field required; keys are dataset, boards"),
    "not YAML": (("boards: [", "boards: ]"), r"line 2 is not YAML"),
    "a key twice": (("method: ssgrl,", "method: ssgrl, method: gap,"), r"line 6 .*'method' stands"),
    "empty": ((GOOD, ""), r"the file = None: "),
    "twice": ((ROW, ROW * 2), r"line 8: the row of line 6 again; join the two"),
    "a score twice": (
        ("93.4}}", "93.4}}, secondary: {readme: {mAP: 93.5}}"),
        r"line 6: mAP stands twice; keep that of the better source",
    ),
}


@pytest.mark.parametrize(("change", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_told_with_its_line(tmp_path, change, said):
    text = GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(PublishedError, match=r"voc2007\.yaml.*" + said) as caught:
        load(write(tmp_path, text))
    assert isinstance(caught.value, StoreError)


def family(name):
    """What recipes call a data set."""
    return registry.find("dataset", name).load().card.family or name


def test_every_score_of_a_card_stands_in_the_files():
    """A number of a card that the files lack, or hold otherwise, is a mistake in one of them."""
    known = {
        (family(row.dataset), row.method, score.metric, score.value, score.status)
        for row in PUBLISHED
        for score in row.scores
    }
    for plugin in registry.plugins("recipe"):
        for score in plugin.load().reported:
            found = (score.dataset, plugin.name, score.metric, score.value, score.status)
            assert found in known, f"{found} of the card is not in results/published"


def test_data_sets_and_editions_are_known():
    for row in PUBLISHED:
        card = registry.find("dataset", row.dataset).load().card
        sizes = {split.images for split in card.splits.values()}
        # The labels of VOC 2012's test split are on a server only.
        assert row.test_images in {None, *sizes} or row.dataset == "voc2012"
        known = {edition for edition in card.identities.values() if "mini" not in edition}
        plugins = {plugin.name for plugin in registry.plugins("dataset")}
        assert set(row.boards) <= known | plugins and not any("mini" in b for b in row.boards)


# -------------------------------------------------------------------------------- beside a board
def board(identity="voc2007", images=4952, method="ssgrl", spec=None, **settings):
    settings = {"backbone": "resnet101", "image_size": 576, "loss": "bce"} | settings
    record = made_record(
        method,
        92.5,
        identity=identity,
        test_images=images,
        settings=settings,
        spec={"track": "published", "dataset": "voc2007", **(spec or {})},
    )
    (table,) = tables([record])
    return table


@pytest.fixture
def one(tmp_path):
    """One published row: SSGRL at 93.4 by our own protocol."""
    return load(write(tmp_path, GOOD))


def test_our_row_of_the_same_kind_is_set_against_it(one):
    (found,) = beside(board(), one)
    assert found.ours.method == "ssgrl" and found.mAP == 92.5
    assert found.difference == pytest.approx(92.5 - 93.4)
    cells = tiers.cells([found])
    assert cells["difference"] == ["-0.90"] and cells["mAP"] == ["93.4"]
    assert cells["read in"] == ["README of the code (verified)"]


@pytest.mark.parametrize(
    "changed",
    [{"method": "gap"}, {"backbone": "resnet50"}, {"image_size": 448}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_method_backbone_or_size_gives_no_difference(one, changed):
    (found,) = beside(board(**changed), one)
    assert found.ours is None and found.difference is None
    assert tiers.cells([found])["difference"] == ["-"]


@pytest.mark.parametrize("track", ["probe", "controlled"])
def test_a_run_that_was_not_trained_as_its_paper_says_gives_no_difference(one, track):
    (found,) = beside(board(spec={"track": track}), one)
    assert found.published.score("mAP").value == 93.4
    assert found.ours is None and found.mAP is None and found.difference is None


@pytest.mark.parametrize(
    "change",
    [
        ("test_images: 4952,", "test_images: 4952, extra_data: COCO,"),
        ("test_images: 4952,", "test_images: 4952, trained_at: 448,"),
        ("test_images: 4952,", "test_images: 4952, loss: asl,"),
    ],
    ids=lambda change: change[1].split()[2],
)
def test_other_conditions_of_theirs_give_no_difference(tmp_path, change):
    (found,) = beside(board(), load(write(tmp_path, GOOD.replace(*change))))
    assert found.difference is None


@pytest.mark.parametrize(
    "table",
    [
        board("voc2007-mini"),
        board(images=600),
        board("voc2007-holdout-0.2"),
        board("coco2017"),
        board("voc2007-3-labels", spec={"labels": ("cat", "dog", "tv | monitor")}),
        board(spec={"labels": ("cat", "dog", "tv | monitor")}),
    ],
    ids=["mini", "fewer images", "holdout", "another set", "labels", "only labels"],
)
def test_a_part_of_the_data_has_no_published_tier(one, table):
    assert beside(table, one) == []


def test_a_score_by_another_protocol_waits_for_ours_by_the_same(tmp_path):
    changed = GOOD.replace("protocol: ap", "protocol: ap-interpolated+difficult-negative")
    rows = load(write(tmp_path, changed))
    (found,) = beside(board(), rows)
    assert found.ours is not None and found.difference is None
    asked = []

    def rescore(run_id, protocol):
        asked.append((run_id, protocol))
        return 93.0

    (found,) = beside(board(), rows, rescore)
    assert asked == [(found.ours.run_ids[0], "ap-interpolated+difficult-negative")]
    assert found.difference == pytest.approx(-0.4)

    def gone(run_id, protocol):
        raise StoreError(f"run {run_id} has no predictions")

    assert beside(board(), rows, gone)[0].difference is None


def test_coco_2014_is_found_whatever_its_digest_and_mini_never():
    full = board(
        "coco2014-unknown-0123456789abcdef", 40_504, spec={"dataset": "coco2014"}, image_size=576
    )
    ours = {(b.published.method, b.published.by): b for b in beside(full, PUBLISHED) if b.ours}
    assert set(ours) == {("ssgrl", "authors")}
    assert len(beside(full, PUBLISHED)) == sum(r.dataset == "coco2014" for r in PUBLISHED)
    assert beside(board("coco-mini", 915, spec={"dataset": "coco"}), PUBLISHED) == []
    assert beside(board("coco2017", 4952, spec={"dataset": "coco"}), PUBLISHED) == []


def test_the_tier_is_in_alphabetical_order_not_ranked():
    names = [one.published.method for one in beside(board(), PUBLISHED)]
    assert names == sorted(names) and len(set(names)) > 8


def test_re_scored_weights_are_never_ranked_with_runs():
    """The same settings, once trained by us and once as published."""
    plain = {"track": "published", "dataset": "voc2007"}
    run = made_record("ssgrl", 92.0, spec=plain)
    scored = made_record("ssgrl", 93.0, spec={**plain, "checkpoint": "sha256:" + "a" * 16})
    assert run.run_id != scored.run_id and (run.tier, scored.tier) == ("own", "re-scored")
    made = tables([run, scored])
    assert sorted((table.tier, len(table.rows), table.rows[0].rank) for table in made) == [
        ("own", 1, 1),
        ("re-scored", 1, 1),
    ]
    assert len({table.name for table in made}) == 2


def test_the_readme_counts_what_is_secondary():
    held = [{score.status for score in row.scores} for row in PUBLISHED]
    only, some = held.count({"secondary"}), sum("secondary" in statuses for statuses in held)
    text = " ".join((FOLDER / "README.md").read_text().split())
    said = (
        f"Of {len(held)} rows {only} hold nothing else, and {some - only} more hold some such score"
    )
    assert said in text


def test_the_page_lists_the_literature_by_data_set_with_the_decimals_of_its_sources():
    shown = lines(PUBLISHED, [], ["ssgrl"], lambda *_: 0.0)
    sets = [row["dataset"] for row in shown]
    assert sets == sorted(sets) and len(shown) == len(PUBLISHED)
    scores = [row[name] for row in shown for name in ("mAP", "CF1", "OF1")]
    assert all("." in score for score in scores if score != NONE) and "80.0" in scores
    assert {row["page"] for row in shown} == {None, "method/ssgrl.html"}
