"""What the pages say, and that no text of others becomes markup."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from mlbench.boards.rows import tables
from mlbench.metrics.protocols import evaluate
from mlbench.recipe import of
from mlbench.recipe import read as settings_of
from mlbench.store import Store
from mlbench.types import EpochLog, Recipe, Reported, Settings, StoreError
from mlbench_tools.page.catalogue import Catalogue
from mlbench_tools.page.site import write_site
from tests.store.made import made_efficiency, made_predictions, made_record, made_scores

EVIL = "<script>alert(1)</script>"


def log(epoch, loss):
    return EpochLog(epoch=epoch, loss=loss, lr=1e-3, seconds=1, images_per_second=10)


def recipe(**fields):
    plain = {"title": "T", "bibtex": "@misc{t}", "summary": "s", "settings": Settings(head="gap")}
    return Recipe(**{**plain, **fields})


@pytest.fixture
def build(tmp_path):
    """Records (and predictions of a run id) -> the folder of their site."""

    def made(records, predictions=None, **given):
        store = Store(tmp_path / "results")
        for record in records:
            store.write(record, (predictions or {}).get(record.run_id))
        given = {"catalogue": Catalogue(), **given}
        boards = tables(store.records())
        return write_site(
            boards,
            records,
            tmp_path / "site",
            results=store.root,
            cache=tmp_path / "cache",
            **given,
        ).parent

    return made


class Page(HTMLParser):
    """Tags, links, ids and texts of a page."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.links, self.scripts, self.texts, self._in = [], [], [], [], ""
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in = tag
        if href := dict(attributes).get("href"):
            self.links.append(href)

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, text):
        (self.scripts if self._in == "script" else self.texts).append(text)


def embedded(site):
    text = (site / "index.html").read_text()
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(block[1])


def test_every_link_leads_to_a_page_that_is_there(build):
    records = [made_record(name, 50) for name in ("ssgrl", 'we"ird <b>', "a/b%2F", "timm:x y")]
    bad = made_record("gap", status="diverged", scores=None, error="nan", efficiency=None)
    site = build([*records, bad])
    data = embedded(site)
    links = [page for b in data["boards"] for row in b["rows"] for _, page in row["runs"]]
    links += [d["page"] for b in data["boards"] for d in b["diverged"]]
    links += [method["page"] for method in data["methods"].values()]
    for link in links:
        assert (site / unquote(link)).is_file(), link
    for file in site.rglob("*.html"):
        for link in Page(file).links:
            if not link.startswith("#"):
                assert (file.parent / unquote(link.partition("#")[0])).is_file(), (file, link)
    assert len(list(site.glob("run/*.html"))) == 5 and len(list(site.glob("method/*.html"))) == 5


def test_text_of_plugins_files_and_labels_never_becomes_markup(build):
    names = (EVIL, "q\"uote'", "</style><img src=x onerror=alert(2)>")
    record = made_record(
        f'm"{EVIL}',
        settings={"backbone": EVIL, "loss": "'\"><svg onload=alert(3)>", "head_options": {EVIL: 1}},
        label_names=names,
        average_precision=(1.0, 2.0, None),
        identity=f"coco{EVIL}",
        command=f"mlbench run {EVIL}",
        notes=(EVIL,),
        environment={EVIL: EVIL},
        epochs=(log(1, 0.5), log(2, 0.4)),
        efficiency=made_efficiency(device=EVIL),
    )
    evil = recipe(
        title=EVIL,
        bibtex=EVIL,
        summary=EVIL,
        deviations=(EVIL,),
        reported=(
            Reported(
                dataset=EVIL, metric="mAP", value=1, source="javascript:alert(4)", status="verified"
            ),
        ),
    )
    catalogue = Catalogue(
        recipes={record.spec.method: evil}, options={record.spec.method: {EVIL: EVIL}}
    )
    predictions = made_predictions()
    site = build([record], {record.run_id: predictions}, catalogue=catalogue)
    for file in site.rglob("*.html"):
        page, index = Page(file), file.name == "index.html"
        count = [tag for tag, _ in page.tags if tag == "script"]
        assert len(count) == (2 if index else 1), file
        assert not [t for t, a in page.tags if t == "img" or any(n.startswith("on") for n in a)]
        assert not [link for link in page.links if link.startswith("javascript")]
        assert "alert(" not in "".join(page.scripts).replace(
            "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e", ""
        ).replace("\\u003csvg onload=alert(3)\\u003e", "")
        assert any("alert(1)" in text for text in page.texts), f"{file} lost the text itself"
    assert embedded(site)["boards"][0]["rows"][0]["backbone"] == EVIL


def test_a_page_allows_its_own_script_and_style_and_nothing_else(build):
    import base64
    import hashlib

    site = build([made_record()])
    for file in site.rglob("*.html"):
        text = file.read_text()
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
        assert "default-src &#39;none&#39;" in policy
        for tag in ("style", "script"):
            body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
            hashed = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            assert f"{tag}-src &#39;sha256-{hashed}&#39;" in policy, (file, tag)
        assert not re.search(r"\s(src|style)=", text), "nothing is loaded, nor styled in place"


def test_boards_carry_intervals_costs_and_latencies_apart_by_place(build):
    records = [
        made_record("gap", 50),
        made_record("gmp", 40, efficiency=made_efficiency(device="H100", median_ms=2)),
        made_record("csra", 30, efficiency=None),
    ]
    data = embedded(build(records))
    (board,) = data["boards"]
    first, second, third = board["rows"]
    assert (first["map"], first["low"], first["high"], first["gmacs"]) == (50, 49, 51, 2.0)
    assert data["places"] == ["AMD EPYC, 2 threads, fp32", "H100, 2 threads, fp32"]
    assert (first["ms"], second["ms"], third["ms"]) == ({"0": 12.5}, {"1": 2.0}, {})
    assert "gmacs" not in third, "what was not measured is missing, not zero"


def test_a_board_of_few_images_carries_what_to_say_of_it(build):
    made = [made_record(test_images=n, identity=f"of{n}") for n in (49, 50)]
    said = {board["images"]: board["few"] for board in embedded(build(made))["boards"]}
    assert said[49].startswith("With only 49 test images") and said[50] == ""


def test_two_label_subsets_of_one_name_keep_two_boards(build):
    two = [made_record(spec={"data": letter * 16}, identity="photos") for letter in ("a", "b")]
    sets = [board["set"] for board in embedded(build(two))["boards"]]
    assert sorted(sets) == ["photos aaaaaaaa", "photos bbbbbbbb"]


def test_a_runs_page_holds_what_repeats_and_explains_it(build):
    record = made_record(
        epochs=(log(1, 0.5), log(2, float("inf")), log(3, 0.25)),
        settings={"optimizer": {"lr": 0.0125}},
        environment={"device": "cpu", "versions": {"torch": "9.9"}},
        notes=("bf16 was not available",),
    )
    other = made_record(value=51, spec={"seed": 1}, settings={"optimizer": {"lr": 0.0125}})
    site = build([record, other], {record.run_id: made_predictions(n=40)})
    page = Page(site / "run" / f"{record.run_id}.html")
    text = " ".join(page.texts)
    for wanted in (
        record.command, f"--repeat {record.run_id}.yaml", "0123456789abcdef", "0.0125", "9.9",
        "bf16 was not available",
        "tv | monitor", "Of all 40 test images", "label-ranking", "ap-interpolated",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert f"../run/{other.run_id}.html" in page.links, "the other seed"
    circles = [attributes for tag, attributes in page.tags if tag == "circle"]
    assert len(circles) == 2, "an infinite loss has no place on the curve"


def test_a_runs_page_repeats_this_run_alone(build):
    record = made_record(settings={"weights": "sha256:ab"}, command="mlbench run --data x")
    scored = made_record(spec={"checkpoint": "sha256:cd"}, command="mlbench evaluate <ours>")
    site = build([record, scored])
    held = by_id(site / "run" / f"{record.run_id}.html")
    assert held["command"] == (
        f"mlbench run --repeat {record.run_id}.yaml --results repeated --data DIR --weights FILE"
    )
    assert settings_of(held["recipe"]) == of(record)
    held = by_id(site / "run" / f"{scored.run_id}.html")
    assert held["command"] == "mlbench evaluate <ours>" and "recipe" not in held


def by_id(file):
    """The texts of a page's <pre>, by their ids."""
    found = re.findall(r'<pre id="(\w+)">(.*?)</pre>', file.read_text(), re.DOTALL)
    return {name: unescape(text) for name, text in found}


def test_training_positives_stand_beside_each_label(build):
    record = made_record(train_positives=(120, 7, 3))
    old = made_record(spec={"seed": 1})
    site = build([record, old], dict.fromkeys((record.run_id, old.run_id), made_predictions(n=40)))
    page = (site / "run" / f"{record.run_id}.html").read_text()
    tested = (made_predictions(n=40).targets == 1).sum(axis=0).tolist()
    assert re.search(
        rf"<td>cat</td><td>50.00</td><td>[\d.]+</td><td>[\d.]+</td><td>{tested[0]}</td><td>120</td>",
        page,
    )
    assert f"<small>({tested[1]} / 7)</small>" in page and 'class="sure"' in page
    assert "labels_head 1" in page and "groups is not defined" not in page
    page = (site / "run" / f"{old.run_id}.html").read_text()
    assert f"<td>{tested[0]}</td></tr>" in page and "training positives</th>" not in page
    assert "groups is not defined here: how many training images" in page


def test_without_predictions_a_label_has_neither_count_nor_interval(build):
    record = made_record()
    page = (build([record]) / "run" / f"{record.run_id}.html").read_text()
    assert "<td>cat</td><td>50.00</td></tr>" in page and 'class="sure"' not in page


def test_rows_carry_what_other_protocols_say_where_all_their_seeds_were_measured(build):
    seeds = [made_record(value=50 + i, spec={"seed": i}) for i in range(2)]
    half = [made_record("gap", 40 + i, spec={"seed": i}) for i in range(2)]
    seen = {r.run_id: made_predictions(i, n=40) for i, r in enumerate([*seeds, half[0]])}
    data = embedded(build([*seeds, *half], seen))
    (board,) = data["boards"]
    names = [name for name, _ in board["protocols"]]
    place = names.index("ap-interpolated")
    assert "canonical" not in names and board["protocols"][place][1] == ["mAP"]
    assert "interpolation" in data["protocols"]["ap-interpolated"]
    measured, missing = board["rows"]
    mean = sum(
        evaluate("ap-interpolated", seen[r.run_id].logits, seen[r.run_id].targets)["mAP"]
        for r in seeds
    )
    assert measured["by"][place] == [pytest.approx(mean / 2, rel=1e-4)]
    assert missing["by"] == [None] * len(names)


def test_other_training_positives_are_measured_anew(build):
    seen = made_predictions(n=40)
    for positives, said in (((120, 7, 3), "labels_head 1"), ((1, 7, 3), "labels_head 0")):
        record = made_record(train_positives=positives)
        site = build([record], {record.run_id: seen})
        assert said in (site / "run" / f"{record.run_id}.html").read_text()


def test_one_of_a_kind_is_singular(build):
    record = made_record(
        test_images=1,
        label_names=("cat",),
        average_precision=(50.0,),
        epochs=(log(1, 0.5),),
        scores=made_scores().model_copy(update={"classes_scored": 1}),
    )
    site = build([record])
    text = " ".join(Page(site / "index.html").texts)
    assert "1 run of 1 method on 1 board." in text
    text = " ".join(Page(site / "run" / f"{record.run_id}.html").texts)
    assert "test image, 1 label scored" in text and "The epoch as a table" in text


def test_a_runs_page_draws_its_reliability_with_a_table(build):
    record, plain = made_record(), made_record("gap")
    site = build([record, plain], {record.run_id: made_predictions(n=40)})
    page = Page(site / "run" / f"{record.run_id}.html")
    assert any(attributes.get("id") == "reliability" for _, attributes in page.tags)
    (bars,) = [a["d"] for _, a in page.tags if a.get("class") == "bars"]
    (points,) = [a["d"] for _, a in page.tags if a.get("class") == "points"]
    known = int((made_predictions(n=40).targets >= 0).sum())
    assert bars.count("M") == points.count("M") > 3 and f"over {known} known pairs" in " ".join(
        page.texts
    )
    without = (site / "run" / f"{plain.run_id}.html").read_text()
    assert "reliability" not in without.partition("</style>")[2]


def test_pages_of_runs_and_methods_that_are_gone_go_at_a_rebuild(build):
    kept, gone = made_record("gap"), made_record("csra")
    site = build([kept, gone])
    (site / "run" / "mine.html").write_text("<title>not of mlbench</title>")
    boards = tables([kept])
    given = {"results": site / "none", "cache": site.parent / "cache", "catalogue": Catalogue()}
    write_site(boards, [kept], site, **given)
    assert {file.name for file in site.glob("run/*")} == {f"{kept.run_id}.html", "mine.html"}
    assert [file.name for file in site.glob("method/*")] == ["gap.html"]


def test_a_run_without_predictions_or_scores_says_so(build):
    bad = made_record(status="diverged", scores=None, error="nan at step 7", efficiency=None)
    page = " ".join(Page(build([bad]) / "run" / f"{bad.run_id}.html").texts)
    assert "nan at step 7" in page and "There are no predictions beside the record." in page


def test_a_methods_page_holds_citation_deviations_options_and_rows(build):
    card = recipe(
        title="A paper",
        deviations=("another gate",),
        settings=Settings(head="ssgrl", epochs=77),
        tuned={"probe": {"optimizer": {"lr": 0.123}}},
        reported=(
            Reported(
                dataset="coco", metric="mAP", value=83.8, source="https://x.org", status="verified"
            ),
        ),
    )
    catalogue = Catalogue(recipes={"ssgrl": card}, options={"ssgrl": {"time_steps": 3}})
    record = made_record(value=61.25)
    page = Page(build([record], catalogue=catalogue) / "method" / "ssgrl.html")
    text = " ".join(page.texts)
    for wanted in (
        "A paper",
        "another gate",
        "77",
        "0.123",
        "83.8",
        "time_steps",
        "@misc{t}",
        "61.25",
    ):
        assert wanted in text, wanted
    assert "https://x.org" in page.links


def test_the_same_records_give_the_same_bytes_and_read_no_predictions_again(build, monkeypatch):
    record = made_record()
    site = build([record], {record.run_id: made_predictions()})
    first = {file: file.read_bytes() for file in site.rglob("*.html")}

    def refuse(*_, **__):
        raise AssertionError("read again")

    monkeypatch.setattr("mlbench_tools.page.examples._find", refuse)
    monkeypatch.setattr("mlbench.store.Store.predictions", refuse)
    build([record], {record.run_id: made_predictions()})
    assert {file: file.read_bytes() for file in site.rglob("*.html")} == first


def test_other_predictions_are_read_anew(build):
    record = made_record()
    site = build([record], {record.run_id: made_predictions(seed=0)})
    page = site / "run" / f"{record.run_id}.html"
    first = page.read_text()
    build([record], {record.run_id: made_predictions(seed=1)})
    assert page.read_text() != first


def test_many_runs_are_written_by_several_processes_alike(build, monkeypatch):
    records = [made_record(f"m{i}", 50 + i) for i in range(6)]
    predictions = {r.run_id: made_predictions(i) for i, r in enumerate(records)}
    site = build(records, predictions)
    first = {file: file.read_bytes() for file in site.rglob("*.html")}
    monkeypatch.setattr("mlbench_tools.page.site.FEW", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for file in first:
        file.unlink()
    build(records, predictions)
    assert {file: file.read_bytes() for file in site.rglob("*.html")} == first


def test_a_folder_that_cannot_be_written_is_named(build, tmp_path):
    (tmp_path / "site").write_text("in the way")
    with pytest.raises(StoreError, match="site"):
        build([made_record()])
