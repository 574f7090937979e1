import csv as reader
import io
import re

import pytest
from rich.console import Console

from mlbench.boards.render import csv, latex, markdown, write
from mlbench.boards.rows import tables
from mlbench.cli.show_boards import terminal
from tests.store.made import made_cost, made_efficiency, made_record


def shown(made, width=200, columns=(), run_ids=None):
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal(made, width, columns, run_ids))
    return console.file.getvalue()


def cells(text):
    """The Markdown table as lists of cells."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


@pytest.fixture
def made():
    records = [
        made_record(value=51.0),
        made_record("msrn", 52.0, spec={"seed": 0}),
        made_record("msrn", 54.0, spec={"seed": 1}),
        made_record("gap", status="diverged", scores=None, error="nan at step 7"),
        made_record(identity="coco-unknown-" + "0" * 16),
    ]
    return tables(records, costs=[made_cost(record) for record in records[:2]])


@pytest.mark.parametrize("render", [shown, markdown])
def test_a_board_says_all_that_is_needed(made, render):
    text = render(made)
    for part in (
        *("coco-mini, probe track", "53.00", "46.7\u201359.3", "2 (sd 1.41)", "39.4\u201362.6"),
        *("the mean over the seeds", "sd 1.41 between seeds", "ratios to the bare backbone"),
        *("2.00", "11.5", "12.5", "AMD EPYC, 1 thread, fp32, eager", "224", "nan at step 7"),
        *("4 test images, 3 labels", "incomplete or unknown data"),
    ):
        assert part in text


@pytest.mark.parametrize(("images", "few"), [(49, True), (50, False)])
@pytest.mark.parametrize("render", [shown, markdown])
def test_a_board_of_few_images_says_what_its_intervals_are_worth(render, images, few):
    text = render(tables([made_record(test_images=images)]))
    assert (f"With only {images} test images, intervals" in " ".join(text.split())) == few


def test_an_average_of_too_few_steps_is_marked_and_explained():
    old = made_record("msrn", 52.0, settings={"ema_decay": 0.9}, train_images=64)
    (table,) = tables([made_record(), old])
    text = markdown([table])
    assert "52.00† |" in text and text.count("†") == 2
    # 2 steps in each of 3 epochs
    assert f"short for its decay: msrn, resnet18, bce {0.9**5:.0%}" in text


def test_markdown_is_a_table_with_the_best_first(made):
    header, rule, first, second = cells(markdown(made[:1]))
    assert len(header) == len(rule) == len(first) == len(second)
    assert [first[header.index(n)] for n in ("#", "ties", "method")] == ["1", "1", "msrn"]
    costs = "GMACs, params, latency"
    assert [row[header.index("Pareto")] for row in (first, second)] == [costs, ""]
    assert second[header.index("method")] == "ssgrl"


def test_names_cannot_break_the_table():
    odd = "a|b\n# c \\| [red]<script>"
    text = markdown(tables([made_record(odd)]))
    rows = cells(text)
    assert len({len(row) for row in rows}) == 1 and len(rows) == 3
    assert "\n# c" not in text and "<script" not in text
    assert "[red]" in shown(tables([made_record(odd)]))


def test_no_cell_of_a_board_is_a_formula_of_a_spreadsheet():
    record = made_record(
        '=HYPERLINK("http://evil")',
        settings={"loss": "@SUM(A1)", "backbone": "+1+1"},
        identity="=cmd|' /C calc'!A0",
        command="-1+\x1b[31m1",
        efficiency=None,
    )
    (row,) = reader.DictReader(io.StringIO(csv(tables([record])[0])))
    assert row["method"] == '\'=HYPERLINK("http://evil")'
    assert [row[name][:2] for name in ("loss", "backbone", "data_set")] == ["'@", "'+", "'="]
    assert row["commands"].startswith("'-1+\N{REPLACEMENT CHARACTER}[31m1")
    assert (row["latency_ms"], row["measured_on"]) == ("", "")


def test_times_of_two_devices_are_marked():
    fast, slow, none = made_record(), made_record("gap"), made_record("gmp")
    costs = [made_cost(fast), made_cost(slow, 900, device="Raspberry")]
    text = markdown(tables([fast, slow, none], costs=costs))
    assert "12.5 (1)" in text and "900.0 (2)" in text
    places = ("AMD EPYC, 1 thread, fp32, eager", "Raspberry, 1 thread, fp32, eager")
    assert f"(1) {places[0]}; (2) {places[1]}" in text
    assert "1 of 3 rows has no latency; run \\`mlbench measure\\`" in text


def test_a_speed_that_is_not_to_be_trusted_says_why():
    fast, slow = made_record(), made_record("gap")
    made = tables([fast, slow], costs=[made_cost(fast, lost=0.5), made_cost(slow, 20, half=0.1)])
    text = markdown(made)
    assert "12.5 busy |" in text and "20.0 unsteady |" in text
    assert "- busy: " in text and "- unsteady: " in text
    rows = reader.DictReader(io.StringIO(csv(made[0])))
    told = {row["method"]: row["latency_remark"] for row in rows}
    assert told == {"ssgrl": "busy", "gap": "unsteady"}


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_terminal_leaves_out_whole_columns_and_names_them(width):
    """Every row keeps what tells it from others, and its runs, in lines that are never cut."""
    long = {"settings": {"backbone": "timm:mobilenetv1_100", "loss": "weighted_bce"}}
    records = [
        made_record(),
        *(made_record("transformer_head", 52.0, spec={"seed": n}, **long) for n in range(3)),
        made_record("gap", 40, settings={"optimizer": {"lr": 0.5}}),
        made_record("gap", 41, settings={"optimizer": {"lr": 0.25}}),
    ]
    text = shown(tables(records, costs=[made_cost(record) for record in records[:1]]), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert all(record.run_id[:8] in text for record in records)
    assert ("weighted_bce" in text and "transformer_head" in text) or width < 80
    heading = " ".join(line for line in lines[1:4])
    dropped = " ".join(text.split()).partition("Left out to fit")[2].partition(".")[0]
    for name in ("latency", "GMACs", "ties", "interval", "params", "CF1", "epochs"):
        assert (name in heading) != (name in dropped or name == "epochs")
    assert (dropped == "") == (width == 200)


def test_a_terminal_names_the_cheapest_row_within_a_point_of_the_best():
    records = [
        made_record("msrn", 54.0, efficiency=made_efficiency(gmacs_head=9.0)),
        made_record("ssgrl", 53.1, efficiency=made_efficiency(gmacs_head=0.4)),
        made_record("gap", 52.9, efficiency=made_efficiency(gmacs_head=0.1)),
    ]
    said = "Cheapest by GMACs within a point of the best mAP: ssgrl, resnet18, bce, mAP 53.10, "
    assert f"{said}2.20 GMACs (run {records[1].run_id[:8]})." in shown(tables(records))
    costs = [made_cost(record) for record in records]
    assert "Cheapest" not in shown(tables(records, costs=costs)), "all take the same time"
    assert "Cheapest" not in shown(tables([records[0], records[2]])), "it is the best itself"


def test_rows_of_some_runs_have_the_marks_and_notes_of_their_whole_board():
    best, worse = made_record("msrn", 54.0), made_record("gap", 53.5)
    small = made_record("csra", 53.2, efficiency=made_efficiency(gmacs_head=0.1))
    lost = made_record("gmp", status="diverged", scores=None, error="nan")
    text = shown(tables([best, worse, small, lost]), run_ids={worse.run_id, small.run_id})
    gap, csra = (next(x for x in text.splitlines() if f" {n} " in x) for n in ("gap", "csra"))
    assert "GMACs" in csra and "GMACs" not in gap, "another row is as cheap and better"
    assert "within a point of the best mAP: csra" in text
    assert " msrn  " not in text and "gmp" not in text and "All rows here: backbone" in text


def test_a_variant_of_all_rows_stands_below_the_terminals_board():
    text = shown(tables([made_record(name, settings={"selection": "validation"}) for name in "ab"]))
    assert "loss bce, selection=validation, size 224" in text and "variant" not in text


def test_columns_are_chosen_by_name(made):
    text = shown(made[:1], columns=("OF1", "mAP"))
    assert text.splitlines()[1].split() == ["OF1", "mAP", "run"] and "Left out" not in text


def test_latex_marks_the_best_and_what_is_not_worse(made):
    text = latex(made[:1])
    assert r"msrn & resnet18 & \textbf{53.00} & 46.7--59.3 & 2.00 & 11.5 & 12.5 \\" in text
    assert r"ssgrl & resnet18 & 51.00$^{\ast}$ & 39.4--62.6" in text
    assert r"a\_b\%" in latex(tables([made_record("a_b%")]))
    far = made_record("gap", 5.0, average_precision=(5.0, 5.0, 5.0))
    assert "5.00 &" in latex(tables([made_record(), far]))


def test_csv_has_every_number_apart(made):
    rows = list(reader.DictReader(io.StringIO(csv(made[0]))))
    assert [row["method"] for row in rows] == ["msrn", "ssgrl"]
    named = [(r["data_set"], r["track"], r["rank"], r["rank_worst"]) for r in rows]
    assert named == [("coco-mini", "probe", "1", "2")] * 2
    best, second = rows
    assert (float(best["mAP"]), float(best["deviation"])) == (53, 1.414214)
    assert float(best["low"]) < 51.6 and second["deviation"] == "" and float(second["high"]) > 52
    assert float(second["latency_ms"]) == 12.5 and len(best["run_ids"].split()) == 2
    assert "--plugins ssgrl" in best["commands"]
    theirs = csv(*tables([made_record(spec={"checkpoint": "sha256:0123456789abcdef"})]))
    assert next(reader.DictReader(io.StringIO(theirs)))["data_set"] == "coco-mini-re-scored"


def test_files_are_the_same_bytes_when_made_again_and_linked_by_the_index(made, tmp_path):
    first = {f.name: f.read_bytes() for f in write(made, tmp_path / "a")}
    assert first == {f.name: f.read_bytes() for f in write(made, tmp_path / "b")}
    assert set(first) == {
        *("coco-mini-probe.md", "coco-mini-probe.csv", "README.md"),
        *(f"coco-unknown-{'0' * 16}-probe.{end}" for end in ("md", "csv")),
    }
    links = re.findall(r"\]\((.+?)\)", first["README.md"].decode())
    assert len(links) == 2 and set(links) < set(first)
