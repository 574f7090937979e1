"""What the pages say, and that no text of others becomes markup."""

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from mlbench.boards.rows import tables
from mlbench.run_file import from_record, from_yaml
from mlbench.store import Store
from mlbench.types import Recipe, Reported, Settings
from mlbench_tools.page.collect import Site
from mlbench_tools.page.site import write_site
from mlbench_tools.scoring.protocols import evaluate
from tests.store.made import made_cost, made_efficiency, made_epoch, made_predictions, made_record

EVIL = "<script>alert(1)</script>"


def recipe(**fields):
    plain = {"title": "T", "bibtex": "@misc{t}", "summary": "s", "settings": Settings(head="gap")}
    return Recipe(**{**plain, **fields})


@pytest.fixture
def build(tmp_path):
    """Records (and predictions of a run id) -> the folder of their site."""

    def made(records, predictions=None, costs=(), **collected):
        store = Store(tmp_path / "results")
        for record in records:
            store.write(record, (predictions or {}).get(record.run_id))
        site = Site(
            tables(records, costs=costs), {record.run_id: record for record in records}, **collected
        )
        return write_site(site, store, tmp_path / "cache", tmp_path / "site").parent

    return made


class Page(HTMLParser):
    """Tags, links, scripts and texts of a page, and its <pre> by their ids."""

    def __init__(self, file):
        super().__init__()
        self.source = file.read_text()
        self.tags, self.links, self.scripts, self.texts, self._in = [], [], [], [], ""
        self.feed(self.source)
        found = re.findall(r'<pre id="(\w+)">(.*?)</pre>', self.source, re.DOTALL)
        self.preformatted = {name: unescape(text) for name, text in found}

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in = tag
        if href := dict(attributes).get("href"):
            self.links.append(href)

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, text):
        (self.scripts if self._in == "script" else self.texts).append(text)

    @property
    def text(self):
        return " ".join(self.texts)


def run(site, record):
    return Page(site / "run" / f"{record.run_id}.html")


def embedded(site):
    text = (site / "index.html").read_text()
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(block[1])


def contents(site):
    return {file: file.read_bytes() for file in site.rglob("*") if file.is_file()}


# -------------------------------------------------------------------------------- the whole of it
def test_the_command_writes_the_boards_that_are_asked_for(cli, tmp_path, monkeypatch, store):
    monkeypatch.setattr("mlbench.cli.progress.SILENCE", 0.005)
    for track in ("probe", "published"):
        store.write(made_record(spec={"track": track}), made_predictions())
    done = cli("page", "site", "--track", "published", "--dataset", "coco")
    assert done.code == 0 and "page: site/index.html" in done.err
    assert "records\n" in done.err, "where it is, whenever it was silent for long"
    assert [board["track"] for board in embedded(tmp_path / "site")["boards"]] == ["published"]
    assert "Query2Label" in (tmp_path / "site" / "index.html").read_text(), "scores of others"
    assert "Semantic-Specific Graph" in (tmp_path / "site" / "method" / "ssgrl.html").read_text()
    cli("page", "none", "--dataset", "voc").failed("no record in results matches")


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
    record = made_record(
        f'm"{EVIL}',
        settings={"backbone": EVIL, "loss": "'\"><svg onload=alert(3)>", "head_options": {EVIL: 1}},
        label_names=(EVIL, "q\"uote'", "</style><img src=x onerror=alert(2)>"),
        average_precision=(1.0, 2.0, None),
        identity=f"coco{EVIL}",
        notes=(EVIL,),
        environment={EVIL: EVIL},
        epochs=(made_epoch(1, 0.5), made_epoch(2, 0.4)),
        efficiency=made_efficiency(device=EVIL),
    )
    score = Reported(
        dataset=EVIL, metric="mAP", value=1, source="javascript:alert(4)", status="verified"
    )
    card = recipe(title=EVIL, bibtex=EVIL, summary=EVIL, deviations=(EVIL,), reported=(score,))
    method = record.spec.method
    predictions = {record.run_id: made_predictions()}
    site = build([record], predictions, recipes={method: card}, options={method: {EVIL: EVIL}})
    for file in site.rglob("*.html"):
        page, index = Page(file), file.name == "index.html"
        assert len([tag for tag, _ in page.tags if tag == "script"]) == (2 if index else 1), file
        assert not [t for t, a in page.tags if t == "img" or any(n.startswith("on") for n in a)]
        assert not [link for link in page.links if link.startswith("javascript")]
        assert "<script>alert" not in "".join(page.scripts) and "<svg onload" not in page.source
        assert any("alert(1)" in text for text in page.texts), f"{file} lost the text itself"
    assert embedded(site)["boards"][0]["rows"][0]["backbone"] == EVIL


def test_a_page_allows_its_own_script_and_style_and_nothing_else(build):
    for file in build([made_record()]).rglob("*.html"):
        text = file.read_text()
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
        assert "default-src &#39;none&#39;" in policy
        for tag in ("style", "script"):
            body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
            hashed = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            assert f"{tag}-src &#39;sha256-{hashed}&#39;" in policy, (file, tag)
        assert not re.search(r"\s(src|style)=", text), "nothing is loaded, nor styled in place"


def test_a_rebuild_gives_the_same_bytes_and_reads_no_predictions_again(build, monkeypatch):
    record = made_record()
    first = contents(build([record], {record.run_id: made_predictions()}))
    monkeypatch.setattr("mlbench.store.Store.predictions", lambda *_: pytest.fail("read again"))
    assert contents(build([record], {record.run_id: made_predictions()})) == first


def test_a_rebuild_removes_pages_of_runs_and_methods_that_are_gone(build):
    kept, gone = made_record("gap"), made_record("csra")
    site = build([kept, gone])
    (site / "run" / "mine.html").write_text("<title>not of mlbench</title>")
    build([kept])
    assert {file.name for file in site.glob("run/*")} == {f"{kept.run_id}.html", "mine.html"}
    assert [file.name for file in site.glob("method/*")] == ["gap.html"]


# -------------------------------------------------------------------------------------- the index
def test_boards_carry_intervals_costs_and_latencies_apart_by_place(build):
    uncounted = made_record("csra", 30, efficiency=None)
    records = [made_record("gap", 50), made_record("gmp", 40), uncounted]
    costs = [made_cost(records[0]), made_cost(records[1], 2, device="H100", lost=0.5)]
    data = embedded(build(records, costs=costs))
    (board,) = data["boards"]
    first, second, third = board["rows"]
    assert (first["map"], first["low"], first["high"], first["gmacs"]) == (50, 49, 51, 2.0)
    sizes = ("batch 1", "batch 16", "one image of the best batch")
    places = [f"{d}, 1 thread, fp32, eager, {size}" for d in ("AMD EPYC", "H100") for size in sizes]
    assert data["places"] == places
    assert first["ms"] == {"0": [12.5, ""], "1": [100, ""], "2": [6.25, ""]}
    assert second["ms"] == {"3": [2, "busy"], "4": [16, "busy"], "5": [1, "busy"]}
    assert third["ms"] == {}
    assert "gmacs" not in third, "what was not measured is missing, not zero"


def test_rows_carry_the_values_of_other_protocols_if_all_their_seeds_have_predictions(build):
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
    given = [seen[record.run_id] for record in seeds]
    mean = sum(evaluate("ap-interpolated", one.logits, one.targets)["mAP"] for one in given)
    assert measured["by"][place] == [pytest.approx(mean / 2, rel=1e-4)]
    assert missing["by"] == [None] * len(names)


# ---------------------------------------------------------------------------------- a run's page
def test_a_runs_page_holds_what_repeats_and_explains_it(build):
    record = made_record(
        epochs=(made_epoch(1, 0.5), made_epoch(2, float("inf")), made_epoch(3, 0.25)),
        settings={"optimizer": {"lr": 0.0125}},
        environment={"device": "cpu", "versions": {"torch": "9.9"}},
        notes=("bf16 was not available",),
        train_positives=(120, 7, 3),
    )
    other = made_record(value=51, spec={"seed": 1}, settings={"optimizer": {"lr": 0.0125}})
    made = made_predictions(n=40)
    page = run(build([record, other], {record.run_id: made}), record)
    for wanted in (
        record.command, f"repeat {record.run_id}.yaml", "0123456789abcdef", "0.0125", "9.9",
        "bf16 was not available", "tv | monitor", "Of all 40 test images", "label-ranking",
        "ap-interpolated", "labels_head 1", f"over {(made.targets >= 0).sum()} known pairs",
    ):  # fmt: skip
        assert wanted in page.text, wanted
    assert f"../run/{other.run_id}.html" in page.links, "the other seed"
    circles = [attributes for tag, attributes in page.tags if tag == "circle"]
    assert len(circles) == 2, "an infinite loss has no place on the curve"
    bars = [float(a["height"]) for _, a in page.tags if a.get("class") == "bars"]
    (points,) = [a["d"] for _, a in page.tags if a.get("class") == "points"]
    assert len(bars) == points.count("M") > 3 and max(bars) == 48 and min(bars) > 0


def test_a_runs_page_repeats_this_run_alone(build):
    record = made_record(settings={"weights": "sha256:ab"}, command="mlbench run --data x")
    scored = made_record(spec={"checkpoint": "sha256:cd"}, command="mlbench evaluate <ours>")
    site = build([record, scored])
    given = run(site, record).preformatted
    assert given["command"] == (
        f"mlbench repeat {record.run_id}.yaml --results repeated --data DIR --weights FILE"
    )
    assert from_yaml(given["recipe"]) == from_record(record)
    given = run(site, scored).preformatted
    assert given["command"] == "mlbench evaluate <ours>" and "recipe" not in given


def test_the_page_of_a_run_that_scored_a_part_of_train_names_no_test_images(build):
    record = made_record(spec={"holdout": 0.2}, train_positives=(120, 7, 3))
    page = run(build([record], {record.run_id: made_predictions(n=40)}), record)
    assert "Of all 40 validation images" in page.text and "validation positives" in page.text
    assert not re.search(r"test (image|label|split|positive)", page.text)


def test_positives_stand_beside_each_label(build):
    record, old = made_record(train_positives=(120, 7, 3)), made_record(spec={"seed": 1})
    made = made_predictions(n=40)
    site = build([record, old], dict.fromkeys((record.run_id, old.run_id), made))
    first, second, _ = (made.targets == 1).sum(axis=0).tolist()
    page = run(site, record).source
    interval = 2 * r"<td>[\d.]+</td>"
    assert re.search(rf"<td>cat</td><td>50.00</td>{interval}<td>{first}</td><td>120</td>", page)
    assert f"<small>({second} / 7)</small>" in page and 'class="sure"' in page
    page = run(site, old).source
    assert f"<td>{first}</td></tr>" in page and "training positives</th>" not in page
    assert "groups is not defined here: how many training images" in page


# -------------------------------------------------------------------------------- a method's page
def test_a_methods_page_holds_citation_deviations_options_and_rows(build):
    score = Reported(
        dataset="coco", metric="mAP", value=83.8, source="https://x.org", status="verified"
    )
    card = recipe(
        title="A paper",
        deviations=("another gate",),
        settings=Settings(head="ssgrl", epochs=77),
        tuned={"probe": {"optimizer": {"lr": 0.123}}},
        reported=(score,),
    )
    options = {"ssgrl": {"time_steps": 3}}
    site = build([made_record(value=61.25)], recipes={"ssgrl": card}, options=options)
    page = Page(site / "method" / "ssgrl.html")
    said = ("A paper", "another gate", "77", "0.123", "83.8", "time_steps", "@misc{t}", "61.25")
    assert [text for text in said if text not in page.text] == []
    assert "https://x.org" in page.links
