"""The page of the committed results in a real browser, opened from disk."""

import csv
import functools
import io
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from mlbench.boards.markup import escaped, one_line, spreadsheet
from mlbench.boards.render import csv as board_csv
from mlbench.boards.rows import tables
from mlbench.store import Store
from mlbench_tools.scoring.protocols import evaluate
from tests.store.made import made_cost

ROOT = Path(__file__).parents[3]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PHONE = {"viewport": {"width": 390, "height": 844}}
MINI, VOC = "coco-mini", "voc2007-mini"
ADDRESS = f"#set={quote(MINI)}&track=probe"


@functools.cache
def committed():
    """Of two boards a seed of all, or of ten, rows, and two of the best; all would take minutes."""
    found = Store(ROOT / "results").records()
    large, small = (
        next(t.rows for t in tables(found) if (t.identity, t.track) == (name, "probe"))
        for name in (MINI, VOC)
    )
    run_ids = {row.run_ids[0] for row in (*large, *small[:10])} | {r.run_ids[1] for r in large[:3]}
    return [record for record in found if record.run_id in run_ids]


@functools.cache
def boards():
    return tables(committed())


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The pages of these records, made as the command makes them."""
    from mlbench_tools.page.collect import collect
    from mlbench_tools.page.literature import load
    from mlbench_tools.page.site import write_site

    folder, store = tmp_path_factory.mktemp("page"), Store(ROOT / "results")
    records = committed()
    counted = [record.efficiency for record in records]
    parameters = [one.parameters_backbone + one.parameters_head for one in counted]
    costs = [made_cost(one, 15e-6 * size) for one, size in zip(records, parameters, strict=True)]
    made = tables(records, costs={cost.network.name: cost for cost in costs}.values())
    by_id = {record.run_id: record for record in records}
    return write_site(collect(made, by_id, load()), store, folder / "cache", folder / "site").parent


@pytest.fixture(scope="module")
def chromium():
    """The browser; skipped where this machine has none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tabs():
    """Options of a tab -> the browser's tab with them, which tests share."""
    return {}


@pytest.fixture
def show(chromium, tabs, site):
    """(page of the site, options of the tab) -> it in the browser; its log must stay empty."""
    shown, said = [], []

    def opened(name=f"index.html{ADDRESS}", **options):
        if (key := repr(options)) not in tabs:
            tabs[key] = chromium.new_context(**options).new_page()
        page = tabs[key]
        page.on("console", lambda message: said.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda r: r.url.startswith("file:") or said.append(f"request {r.url}"))
        file, _, address = name.partition("#")
        page.goto((site / file).as_uri() + (f"#{address}" if address else ""))
        shown.append(page)
        return page

    yield opened
    for page in shown:
        page.evaluate("localStorage.clear()")
        page.goto("about:blank")  # from there, every address loads the page anew
    assert said == []


def column(page, heading):
    """The texts of a column of the board."""
    heads = page.locator("#board thead th").all_text_contents()
    place = heads.index(heading) + 1
    return page.locator(f"#board tbody tr > :nth-child({place})").all_text_contents()


def numbers(texts):
    return [float(text.split()[0]) for text in texts]


def mini():
    return next(table for table in boards() if table.identity == MINI)


def test_the_board_holds_every_row_with_its_numbers(show):
    page, table = show(viewport={"width": 1280, "height": 900}), mini()
    fold = page.locator("#board tbody tr").nth(9).bounding_box()
    assert fold["y"] < 800, "ten rows are above the fold"
    region, plot = (page.locator(at).bounding_box() for at in (".tall:has(#board)", "#plot"))
    assert plot["x"] > region["x"] + region["width"] and plot["y"] < 500, "the plot is beside it"
    cost = page.locator("#board th", has_text="latency").bounding_box()
    assert cost["x"] + cost["width"] <= region["x"] + region["width"], "costs need no scrolling"
    heads = page.locator("#board thead th").all_text_contents()
    titles = page.locator("#board thead button").evaluate_all("all => all.map(b => b.title)")
    assert all(titles), "every column says what it is"
    assert heads[:5] == ["#", "ties", "method", "mAP", "backbone"]
    assert "size" not in heads and "epochs" not in heads, "what all rows share is no column"
    assert column(page, "method") == [row.method for row in table.rows]
    assert column(page, "#") == [str(row.rank) for row in table.rows]
    assert column(page, "ties") == [str(row.rank_worst - row.rank) for row in table.rows]
    assert numbers(column(page, "mAP")) == [round(row.mAP, 2) for row in table.rows]
    near = [row for row in table.rows if row.mAP >= table.rows[0].mAP - 1]
    least = min(near, key=lambda row: row.gmacs)
    assert f"{least.method}, {least.backbone}, {least.loss}; mAP {least.mAP:.2f}" in (
        page.inner_text("#cheapest")
    ), "what most readers look for"


def test_choosing_another_board_changes_rows_and_facts(show):
    page = show("index.html")
    page.select_option("#set", VOC)
    facts = page.inner_text("#facts")
    assert "20 labels" in facts
    other = next(table for table in boards() if table.identity == VOC)
    assert column(page, "method") == [row.method for row in other.rows]
    assert "set=voc2007-mini" in page.url
    page.reload()
    assert page.input_value("#set") == VOC, "the address holds the choice"
    page.click("nav a:has-text('Methods')")
    assert page.input_value("#set") == VOC, "a link within the page chooses no board"


def test_filters_keep_what_fits(show):
    page = show()
    page.select_option("#loss", "asl")
    assert set(column(page, "loss")) == {"asl"}
    page.fill("#gmacs", "0.36")
    assert numbers(column(page, "GMACs")) and max(numbers(column(page, "GMACs"))) <= 0.36
    page.fill("#method", "DECODER")
    assert set(column(page, "method")) == {"ml_decoder"}
    shown = page.locator("#plot a").count()
    assert shown == len(column(page, "method")), "the plot follows the filters"
    assert page.inner_text("#count") == f"{shown} of {len(mini().rows)} rows"
    page.fill("#epochs", "1")
    assert column(page, "method") == [] and "No row to plot" in page.inner_text("#plot")
    page.click("#clear")
    assert len(column(page, "method")) == len(mini().rows)
    page.fill("#params", "2.5")
    page.fill("#latency", "40")
    fast = numbers(column(page, "latency (ms)"))
    assert 0 < len(fast) < len(mini().rows) and max(fast) <= 40
    assert max(numbers(column(page, "params (M)"))) <= 2.5


def test_ticked_rows_stay_on_top_for_comparison(show):
    page, rows = show(), mini().rows
    page.locator("#board tbody input").nth(5).check()
    assert column(page, "method")[:2] == [rows[5].method, rows[0].method]
    page.fill("#method", "no such method")
    assert column(page, "method") == [rows[5].method]
    page.locator("#board tbody input").click()
    assert column(page, "method") == []


def test_a_row_says_when_and_how_it_was_made(show):
    page, row = show(), mini().rows[0]
    record = Store(ROOT / "results").find(row.run_ids[0])
    made = page.locator("#board tbody .made").first
    assert record.command not in made.inner_text()
    made.locator("summary").click()
    for part in (str(record.began.date()), record.commit, record.command):
        assert part in made.inner_text()


def test_filters_fold_away_on_a_phone(show):
    page = show(**PHONE)
    assert page.locator("#set").is_hidden()
    assert page.locator("#board tbody tr").first.bounding_box()["y"] < 500
    page.click("#choose summary")
    assert page.locator("#set").is_visible()


def test_boards_can_be_read_without_scripts(show):
    text = show(java_script_enabled=False).inner_text("main")
    assert "coco-mini, probe track" in text and mini().rows[0].run_ids[0][:8] in text


def test_headings_sort_by_keyboard_and_say_so(show):
    page = show()
    button = page.locator("#board button[data-sort=gmacs]")
    button.focus()
    page.keyboard.press("Enter")
    assert numbers(column(page, "GMACs")) == sorted(numbers(column(page, "GMACs")))
    head = page.locator("#board th", has=page.locator("button[data-sort=gmacs]"))
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert numbers(column(page, "GMACs")) == sorted(numbers(column(page, "GMACs")), reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator("#board th[aria-sort=ascending]").count() == 0


def test_the_plot_draws_points_intervals_and_the_front(show):
    page, rows = show(), mini().rows
    assert page.locator("#plot a").count() == len(rows)
    beaten = {
        a.run_ids for a in rows for b in rows
        if b.gmacs <= a.gmacs and b.mAP >= a.mAP and (b.gmacs, b.mAP) != (a.gmacs, a.mAP)
    }  # fmt: skip
    assert page.locator("#plot .dot.best").count() == len(rows) - len(beaten)
    whiskers = page.locator("#plot .whisker").evaluate_all("w => w.map(x => x.getAttribute('d'))")
    assert sum(path.count("M") for path in whiskers) == len(rows)
    page.select_option("#x", "ms")
    assert "AMD EPYC" in page.text_content("#plot svg"), "a latency axis names its device"
    page.select_option("#x", "params")
    page.uncheck("#log")
    assert "parameters" in page.text_content("#plot svg")


def test_points_tell_their_row_to_the_keyboard_and_lead_to_the_run(show):
    page = show()
    page.locator("#plot a[tabindex='0']").first.focus()
    tip = page.locator("#plot .tip")
    assert "mAP" in tip.inner_text() and f" of {len(mini().rows)}" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.locator("#plot a[tabindex='0']").last.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/run/*.html")
    assert page.inner_text("h1").startswith(mini().rows[0].method)


def test_a_runs_page_is_reached_from_the_board_and_leads_back(show):
    page, row = show(), mini().rows[0]
    record = Store(ROOT / "results").find(row.run_ids[0])  # one seed of the row, which is a mean
    page.click(f"#board a[aria-label='run {record.run_id}']")
    page.wait_for_url("**/run/*.html")
    assert f"{record.scores.mAP:.2f}" in page.inner_text("main")
    assert page.locator(".curve circle").count() == row.epochs
    assert page.locator(".labels li").count() == 80
    assert page.locator("#examples tbody tr").count() == 20
    assert page.locator("#protocols").is_hidden() and page.locator(".reliability").is_visible()
    page.click("summary:has-text('protocols')")
    assert "ap-interpolated" in page.inner_text("#protocols")
    page.locator("summary:has-text('The bins as a table')").focus()
    page.keyboard.press("Enter")
    rows = page.locator("#reliability tbody tr")
    points = page.locator(".reliability .points").get_attribute("d")
    assert rows.first.is_visible() and rows.count() == points.count("M")
    page.click("main a:has-text('probe track')")
    page.wait_for_url("**/index.html*")
    assert page.input_value("#set") == MINI and page.input_value("#track") == "probe"


def test_the_matrix_of_wins_says_who_can_be_told_apart(show):
    page, table = show(), mini()
    page.click("#wins summary")
    signs = page.locator("#matrix tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].slice(1).map(c => c.className))"
    )
    spoken = {"+": "win", "-": "loss", "=": "same", ".": "self"}
    assert signs == [[spoken[sign] for sign in row] for row in table.wins]
    heads = page.locator("#matrix tbody th").all_text_contents()
    assert [head.partition(",")[0] for head in heads] == [
        f"{i}. {name}" for i, name in enumerate(column(page, "method"), 1)
    ], "the matrix is in the order of the board"
    assert [head.rpartition("# ")[2] for head in heads] == [f"{r})" for r in column(page, "#")]


def paper(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_mode_follows_the_system_until_the_reader_chooses(show):
    assert paper(show("method/gap.html", color_scheme="light")) == "rgb(255, 255, 255)"
    page = show("method/gap.html", color_scheme="dark")
    dark = paper(page)
    assert dark == "rgb(20, 23, 26)"
    page.focus("#theme")
    page.keyboard.press("Enter")
    assert paper(page) == "rgb(255, 255, 255)"
    page.reload()
    assert paper(page) == "rgb(255, 255, 255)", "the choice is kept"
    page.click("#theme")
    assert paper(page) == dark


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const f = c.slice(0, 3).map((v) => v / 255).map(
    (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const ground = (e) => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  return Math.min(...[...document.querySelectorAll("h1, p, td, th, a, label, button, select")]
    .filter((e) => e.offsetParent && e.textContent.trim()).map((e) => {
      const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))]
        .sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05); }));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_as_wcag_asks(show, scheme):
    assert show(color_scheme=scheme).evaluate(CONTRAST) >= 4.5


def test_pages_fit_the_screen_and_log_nothing(show, site):
    """320 pixels: WCAG 2.2, success criterion 1.4.10 (reflow)."""
    page = show("method/gap.html", viewport={"width": 320, "height": 844})
    pages = site.glob("method/*.html"), site.glob("run/*.html")
    for file in [site / "index.html", *(file for kind in pages for file in [*kind][::6])]:
        page.goto(file.as_uri())
        assert page.locator("h1").count() == 1
        for width in (1280, 320):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") == width, file.name
            ends = "all => Math.max(...all.map(e => e.getBoundingClientRect().right))"
            assert page.locator("main > *").evaluate_all(ends) <= width, file.name


def test_tab_reaches_everything_from_the_skip_link_on(show):
    page = show(f"index.html{ADDRESS}&method=grl")  # of many rows Tab takes minutes
    page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert page.evaluate(f"{focused}.className") == "skip"
    page.keyboard.press("Enter")
    wanted = {"set", "track", "method", "loss", "epochs", "gmacs", "clear", "x", "log", "rank"}
    seen = []
    for _ in range(2000):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(
            f"e = {focused}; [e.id || e.dataset.sort || e.tagName,"
            " getComputedStyle(e).outlineStyle !== 'none' || !!e.closest('svg')]"
        )
        seen.append(name)
        if name == "BODY":  # past the last
            break
        assert outlined, f"focus on {name} cannot be seen"
    assert wanted <= set(seen)
    names = page.locator("input, select").evaluate_all(
        "all => all.map(x => x.labels.length || x.ariaLabel)"
    )
    assert names and all(names), "every control has a label"


@pytest.fixture
def copied(show):
    """(page, button) -> what it leaves in the clipboard."""
    page = show(permissions=["clipboard-read", "clipboard-write"])

    def press(name):
        page.click(f"#board-title ~ .controls button:has-text('Copy {name}')")
        page.locator(".copied", has_text="copied").wait_for()
        text = page.evaluate("navigator.clipboard.readText()")
        page.evaluate("document.querySelector('.copied').textContent = ''")
        return text

    page.select_option("#loss", "asl")
    press.page = page
    return press


def test_the_shown_rows_are_copied_in_every_format(copied):
    rows = [row for row in mini().rows if row.loss == "asl"]
    lines = list(csv.DictReader(copied("CSV").splitlines()))
    assert [(line["method"], line["run_ids"]) for line in lines] == [
        (row.method, " ".join(row.run_ids)) for row in rows
    ]
    ranks = [(str(row.rank), str(row.rank_worst)) for row in rows]
    assert [(line["rank"], line["rank_worst"]) for line in lines] == ranks
    shared = set(csv.DictReader(io.StringIO(board_csv(mini()))).fieldnames) & set(lines[0])
    assert len(shared) == len(lines[0]), "the names of the board's file"
    assert [float(line["mAP"]) for line in lines] == pytest.approx([r.mAP for r in rows], abs=0.01)
    markdown = copied("Markdown").strip().splitlines()
    assert len(markdown) == len(rows) + 2 and len({m.count(" | ") for m in markdown[2:]}) == 1
    latex = copied("LaTeX")
    assert latex.startswith("\\begin{tabular}{rrlrllrr") and latex.count("\\\\\n") == len(rows) + 1
    assert "ml\\_decoder" in latex and "transformer_head" not in latex
    bibtex = copied("BibTeX")
    assert bibtex.count("@") >= 5 and "chen2019ssgrl" in bibtex
    copied.page.select_option("#protocol", "hamming")
    (line, *_) = csv.DictReader(copied("CSV").splitlines())
    assert line["protocol"] == "hamming" and "hamming_loss (lower is better)" in line
    assert not {"rank", "rank_worst", "low", "high", "deviation"} & set(line)


EVIL = (
    '=HYPERLINK("http://evil")', "@SUM(A1)", "=cmd|' /C calc'!A0", "+1+1", "-1.5", "-1+1", "\t=1",
    "[x](http://evil)", "`a` *b* ~~c~~ _d_ ml_decoder", "&lt;b&gt; <img>", "a\x1b[31mb\x9b\u202ec",
    "a\x1c b\u2003c\u00a0 \x85d", "51.00 [50.0,52.0]", "$x$ \\| |", "]: ][ ](", "",
)  # fmt: skip


def test_what_is_copied_is_escaped_by_the_rules_of_the_files(show):
    page = show()
    for theirs, ours in (("one", one_line), ("escaped", escaped), ("spreadsheet", spreadsheet)):
        copied = page.evaluate(f"texts => texts.map({theirs})", EVIL)
        assert copied == [ours(text) for text in EVIL], theirs
    row = page.evaluate("asCsv({head: ['a', 'b'], body: [['=1,\"2\"', 'c\\rd']]})")
    assert next(csv.reader(io.StringIO(row.split("\n", 1)[1], newline=""))) == ['\'=1,"2"', "c\rd"]


APART = """axis => {
  const box = (e) => e.getBoundingClientRect(), svg = box(document.querySelector("#plot svg"));
  const names = [...document.querySelectorAll("#plot .name")].map(box);
  const marks = [...document.querySelectorAll("#plot .dot")].map(box);
  const lie = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  const out = (n) => n.left < svg.left || n.right > svg.right || n.top < svg.top;
  return { names: names.length, outside: names.filter(out).length,
    onMarks: names.filter((n) => marks.some((m) => lie(n, m))).length,
    onNames: names.filter((n, i) => names.slice(0, i).some((m) => lie(n, m))).length };
}"""


@pytest.mark.parametrize("options", [{"viewport": {"width": 1280, "height": 900}}, PHONE], ids=str)
def test_the_names_of_the_front_cover_neither_markers_nor_one_another(show, options):
    page = show(**options)
    for axis in ("gmacs", "params", "ms"):
        page.select_option("#x", axis)
        found = page.evaluate(APART)
        assert found.pop("names") >= 1 and set(found.values()) == {0}, (axis, found)


def test_the_numbers_of_a_learning_curve_are_whole_on_a_phone(show, site):
    page = show(str(next((site / "run").glob("*.html")).relative_to(site)), **PHONE)
    frame = page.locator(".curve").bounding_box()
    boxes = [text.bounding_box() for text in page.locator(".curve text").all()]
    assert len(boxes) > 4
    for box in boxes:
        assert box["x"] >= frame["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"]


def test_another_protocol_is_a_choice_of_the_board(show):
    page, store = show(), Store(ROOT / "results")
    plotted = page.locator("#plot .front").get_attribute("d")
    page.select_option("#protocol", "ap-interpolated")
    heads = page.locator("#board thead th").all_text_contents()
    assert "#" not in heads and heads[:3] == ["method", "mAP", "backbone"]
    assert "hold for the canonical protocol alone" in page.inner_text("#protocol-note")
    assert "protocol=ap-interpolated" in page.url
    rows = page.locator("#board tbody tr")
    whole = [row.split() for row in column(page, "mAP")]
    scores = [float(text) for (text,) in whole]
    assert scores == sorted(scores, reverse=True) and len(scores) == len(mini().rows)
    runs = rows.first.locator(".runs a").evaluate_all("all => all.map(a => a.ariaLabel.slice(4))")
    held = [store.predictions(store.find(run)) for run in runs]
    mean = sum(evaluate("ap-interpolated", h.logits, h.targets)["mAP"] for h in held) / len(held)
    assert scores[0] == pytest.approx(mean, abs=0.006)
    page.select_option("#protocol", "hamming")
    assert page.locator("#board th[aria-sort=ascending]").text_content() == "hamming_loss"
    assert page.locator("#wins").is_hidden() and page.locator("#ranks-note").is_hidden()
    assert page.locator("#plot .front").get_attribute("d") == plotted
    page.reload()
    assert page.input_value("#protocol") == "hamming"
    page.select_option("#protocol", "")
    assert column(page, "method") == [row.method for row in mini().rows]


def test_the_literature_follows_the_data_set(show):
    page = show()
    sets = "rows => [...new Set(rows.filter(r => !r.hidden).map(r => r.cells[0].textContent))]"
    rows = page.locator(".literature tbody tr")
    assert rows.evaluate_all(sets) == ["coco2014"]
    page.select_option("#set", VOC)
    assert rows.evaluate_all(sets) == ["voc2007"]
    page.check("#papers")
    assert len(rows.evaluate_all(sets)) > 2
