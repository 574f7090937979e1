"""Render tables as Markdown, CSV and LaTeX. Equal tables give equal bytes."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mlbench.boards import pareto
from mlbench.boards.markup import escaped, fenced, grid, latex_escaped, one_line, spreadsheet
from mlbench.boards.rows import PLACES, Row, Table
from mlbench.files import atomic_write, cut_name
from mlbench.text import count, plural
from mlbench.types import OLD_AVERAGE, Speed, StoreError

OVER_IMAGES = "mAP in percent; interval: its 95 % bootstrap interval over {images}s."
OVER_TRAINING = (
    "mAP in percent, the mean over the seeds (sd: their standard deviation); interval: the 95 % "
    "interval of this mean over {images}s (bootstrap) and training."
)
OLD_MARK = "†"
RATIO = (
    "A model's time is the median of its ratios to the bare backbone, which ran in turns with it, "
    "times the backbone's shortest time."
)
REMARKS = {
    "busy": "other work had the processor for over a fifth of the time that was measured",
    "unsteady": "the latency is known to no better than 6 %",
}
"""Remark on a latency -> its meaning."""
SPEED_COLUMNS = {
    "latency_ms": "ms",
    "latency_low": "low",
    "latency_high": "high",
    "head_ms": "head_ms",
    "latency_16_ms": "ms_16",
    "images_per_second": "images_per_second",
    "best_batch": "best_batch",
    "latency_remark": "remark",
    "measured_on": "place",
}
"""Column of a CSV file -> field of ``Speed``."""
FEW_IMAGES = 50
"""Number of test images below which bootstrap intervals cover much less than 95 %."""
OTHER_CODE = (
    "Made by other code than is installed, which would give other numbers: not comparable with "
    "any other board. The command of a run makes it again (`mlbench why RUN`)."
)
UNTUNED = (
    "Untuned learning rates (neither from the recipe for this track nor best in `mlbench tune`)"
)


class Column(NamedTuple):
    """A column of a board as text; names are aligned left, numbers right."""

    name: str
    side: Literal["left", "right"]
    cells: list[str]

    @property
    def constant(self) -> bool:
        """True if all cells are equal."""
        return len(set(self.cells)) == 1

    @property
    def empty(self) -> bool:
        """True if all cells are empty."""
        return not set(self.cells) - {"", "-"}


def markdown(tables: Sequence[Table]) -> str:
    """Return one section per board, with the commands that made it."""
    return "\n".join(map(_section, tables))


def csv(*tables: Table) -> str:
    """Return a line per row of the boards, with a column per number; cells are never formulas."""
    import pandas as pd

    lines = []
    for board, row in ((table, row) for table in tables for row in table.rows):
        plain = row.model_dump(exclude={"speeds", "run_ids", "commands"})
        plain = {k: round(v, 6) if isinstance(v, float) else v for k, v in plain.items()}
        for name, field in SPEED_COLUMNS.items():
            values = [getattr(speed, field) for speed in row.speeds]
            plain[name] = " / ".join(f"{v:.3f}" if isinstance(v, float) else f"{v}" for v in values)
        plain |= {"run_ids": " ".join(row.run_ids), "commands": "\n".join(row.commands)}
        data_set = board.data_name + "-other-code" * (not board.current)
        plain |= {"data_set": data_set, "track": board.track}
        lines.append({k: spreadsheet(v) if isinstance(v, str) else v for k, v in plain.items()})
    apart = ("rank", "rank_worst", "title", "first_weights", "speeds", "run_ids", "commands")
    head = [
        *("data_set", "track", "rank", "rank_worst"),
        *(name for name in Row.model_fields if name not in apart),
        *(*SPEED_COLUMNS, "run_ids", "commands"),
    ]
    return str(pd.DataFrame(lines, columns=head).to_csv(index=False, lineterminator="\n"))


def latex(tables: Sequence[Table]) -> str:
    """Return a ``tabular`` of each board for the package booktabs: mAP and costs."""
    return "\n".join(map(_tabular, tables))


def _tabular(table: Table) -> str:
    named = {column.name: column for column in columns(table)}
    several = [n for n in ("loss", "variant") if not (named[n].constant or named[n].empty)]
    costs = [n for n in ("GMACs", "params (M)", "latency (ms)") if not named[n].empty]
    kept = [named[n] for n in ("method", "backbone", *several, "mAP", "interval", *costs)]
    cells = [[latex_escaped(cell) for cell in column.cells] for column in kept]
    scores = cells[kept.index(named["mAP"])]
    scores[:] = [
        rf"\textbf{{{s}}}" if s == scores[0] else rf"{s}$^{{\ast}}$" if win == "=" else s
        for s, win in zip(scores, "".join(table.wins[:1]), strict=True)
    ]
    head = [latex_escaped(column.name) for column in kept]
    first, *rest = [" & ".join(line) + r" \\" for line in (head, *zip(*cells, strict=True))]
    sides = "".join(column.side[0] for column in kept)
    lines = [
        f"% {one_line(table.heading)}. Bold: the best mAP; asterisk: not significantly worse.",
        *(rf"\begin{{tabular}}{{{sides}}}", r"\toprule", first, r"\midrule", *rest),
        *(r"\bottomrule", r"\end{tabular}", ""),
    ]
    return "\n".join(lines)


def write(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write ``<name>.md`` and ``<name>.csv`` for every board and an index ``README.md``.

    Files of boards that no longer exist are deleted.

    Raises:
        StoreError: a file cannot be written; records are not affected.
    """
    store = shlex.quote(str(folder.parent))
    contents = {folder / f"{_file_name(table)}.md": markdown([table]) for table in tables}
    contents |= {folder / f"{_file_name(table)}.csv": csv(table) for table in tables}
    contents[folder / "README.md"] = _index(tables)
    for file, text in contents.items():
        try:
            with atomic_write(file) as part:
                part.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise StoreError(
                f"{file}: the board could not be written ({error.strerror or error}); free space "
                f"or grant write permission, then run `mlbench leaderboard --results {store}`"
            ) from error
    for gone in set(folder.glob("*.csv")) - contents.keys():
        if gone.read_bytes().startswith(b"data_set,track,rank,"):
            gone.unlink()
            gone.with_suffix(".md").unlink(missing_ok=True)
    return list(contents)


def columns(table: Table) -> list[Column]:
    """Return all columns of a board, also empty ones."""
    rows = table.rows
    ties = [row.rank_worst - row.rank for row in rows]
    sds = ("" if row.deviation is None else f" (sd {row.deviation:.2f})" for row in rows)
    seeds = [f"{row.seeds}{sd}" for row, sd in zip(rows, sds, strict=True)]
    starts, nothing = [row.pretraining for row in rows], [""] * len(rows)
    return [
        Column("#", "right", [str(row.rank) for row in rows]),
        Column("ties", "right", [str(n) if n > 0 else "-" for n in ties]),
        Column("method", "left", [row.method for row in rows]),
        Column("backbone", "left", [row.backbone for row in rows]),
        Column("loss", "left", [row.loss for row in rows]),
        Column("variant", "left", [row.variant for row in rows]),
        Column("mAP", "right", [_score(row) for row in rows]),
        Column("interval", "right", [_interval(row) for row in rows]),
        Column("seeds", "right", nothing if table.training_deviation is None else seeds),
        Column("CF1", "right", [_number(row.CF1, PLACES) for row in rows]),
        Column("OF1", "right", [_number(row.OF1, PLACES) for row in rows]),
        Column("GMACs", "right", [_number(row.gmacs, 2) for row in rows]),
        Column("params (M)", "right", [_number(row.parameters, 1) for row in rows]),
        _speed_column("latency (ms)", table, lambda speed: speed.ms, 1),
        _speed_column("batch 16 (ms)", table, lambda speed: speed.ms_16, 1),
        _speed_column("images/s", table, lambda speed: speed.images_per_second, 0),
        Column("Pareto", "left", pareto.marks(rows)),
        Column("weights from", "left", starts if len(set(starts)) > 1 else nothing),
        Column("size", "right", [str(row.image_size) for row in rows]),
        Column("epochs", "right", [str(row.epochs) for row in rows]),
        Column("run", "left", [" ".join(run_id[:8] for run_id in row.run_ids) for row in rows]),
    ]


def _places(table: Table) -> dict[str, str]:
    """Map each place of measurement to its mark, which is empty for a single place."""
    places = sorted({speed.place for row in table.rows for speed in row.speeds})
    return {place: f"({i})" if places[1:] else "" for i, place in enumerate(places, start=1)}


def _score(row: Row) -> str:
    return f"{row.mAP:.{PLACES}f}{OLD_MARK if row.first_weights > OLD_AVERAGE else ''}"


def _interval(row: Row) -> str:
    return f"{row.low:.1f}\N{EN DASH}{row.high:.1f}"


def _speed_column(
    name: str, table: Table, read: Callable[[Speed], float | None], places: int
) -> Column:
    """Make a column of the speeds, with remarks and the marks of their places."""
    marks = _places(table)
    cells = []
    for row in table.rows:
        found = [(value, speed) for speed in row.speeds if (value := read(speed)) is not None]
        texts = ((f"{v:.{places}f}", marks[s.place], s.remark) for v, s in found)
        cells.append("; ".join(" ".join(filter(None, text)) for text in texts) or "-")
    return Column(name, "right", cells)


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def few_images(table: Table) -> str:
    """Return a warning about intervals if there are few test images, else an empty string."""
    with_few = (
        f"With only {count(table.test_images, table.images)}, intervals and ranks mean little: a "
        "bootstrap cannot tell how other images would be scored."
    )
    return with_few if table.test_images < FEW_IMAGES else ""


def notes(table: Table) -> list[str]:
    """Return the notes that explain the numbers of a board."""
    scored = f"{count(table.test_images, table.images)}, {count(table.classes, 'label')}"
    if table.left_out:
        scored += f" ({table.left_out} without an AP left out)"
    interval = OVER_IMAGES if table.training_deviation is None else OVER_TRAINING
    unknown = ("Not an edition that the card of the data set knows", *table.coverage)
    lines = [
        "" if table.current else OTHER_CODE,
        "" if table.known else "; ".join(unknown),
        f"{scored}. {interval.format(images=table.images)}",
        few_images(table),
        *_rank_notes(table),
        "GMACs: 1e9 multiply-accumulates per image, backbone and head together.",
    ]
    old = [row for row in table.rows if row.first_weights > OLD_AVERAGE]
    if old:
        shares = "; ".join(f"{row.title} {row.first_weights:.0%}" for row in old)
        lines.append(
            f"{OLD_MARK} Of the moving average that was scored, a part still are the weights after "
            f"the first step, because training was short for its decay: {shares}."
        )
    starts = {row.pretraining for row in table.rows}
    start = starts.pop() if len(starts) == 1 else ""
    lines += [
        f"{UNTUNED}: {'; '.join(table.untuned)}." if table.untuned else "",
        *_speed_notes(table),
        f"Initial weights: {start}." if start else "",
        pareto.LEGEND if any(pareto.marks(table.rows)) else "",
        "" if table.labels is None else f"Labels: {', '.join(table.labels)}.",
        f"Options that differ by loss: {'; '.join(table.options)}." if table.options else "",
    ]
    diverged = (f"{run.title} ({run.run_id}): {run.error}" for run in table.diverged)
    return [*filter(None, lines), *(f"Not ranked: {text}" for text in diverged)]


def _speed_notes(table: Table) -> list[str]:
    """Return the notes that explain the speeds of a board."""
    notes, places = [], _places(table)
    if len(places) == 1:
        notes.append(f"Latency: at batch 1 on {next(iter(places))}. {RATIO}")
    elif places:
        listed = "; ".join(f"{mark} {place}" for place, mark in places.items())
        notes.append(f"Latency: at batch 1; not comparable between {listed}. {RATIO}")
    if lacking := sum(not row.speeds for row in table.rows):
        have = "has" if lacking == 1 else "have"
        notes.append(
            f"{lacking} of {len(table.rows)} rows {have} no latency; run `mlbench measure`."
        )
    remarks = {speed.remark for row in table.rows for speed in row.speeds}
    notes += [f"{word}: {meaning}." for word, meaning in REMARKS.items() if word in remarks]
    return notes


def _rank_notes(table: Table) -> list[str]:
    """Return the notes that explain the ranks of a board."""
    if len(table.rows) < 2:
        return []
    notes = [
        "Rows are sorted by mAP. #: the rank, 1 + the number of significantly better rows; ties: "
        "how many other rows are neither significantly better nor worse (95 % confidence, paired "
        "over images, Holm over all pairs of the board).",
        "No row has several seeds: the noise of training is not counted, and ranks compare these "
        "trained models only."
        if table.training_deviation is None
        else f"The noise of training is counted: sd {table.training_deviation:.2f} between seeds, "
        "pooled over all rows that have several.",
    ]
    if table.unpaired:
        notes.append(
            f"{table.unpaired} of {len(table.rows)} rows have no usable predictions: they are "
            "ranked by their scores and intervals, as if they had been scored on different images."
        )
    return notes


def _section(table: Table) -> str:
    lines = [f"# {escaped(table.heading)}", ""]
    if table.rows:
        kept = [column for column in columns(table) if not column.empty]
        numbers = [column.name for column in kept if column.side == "right"]
        cells = zip(*(column.cells for column in kept), strict=True)
        lines += [*grid([column.name for column in kept], numbers, cells), ""]
    lines += [f"- {escaped(note)}" for note in notes(table)]
    made: dict[str, list[str]] = defaultdict(list)
    for row in table.rows:
        for command in row.commands:
            made[command] += row.run_ids
    if made:
        lines += ["", "Made by:", ""]
    for command, run_ids in made.items():
        made_runs = f"{plural(len(run_ids), 'run')} {', '.join(run_ids)}"
        lines += [*fenced(one_line(command)), made_runs, ""]
    return "\n".join(lines).rstrip() + "\n"


def _index(tables: Sequence[Table]) -> str:
    text = "Made from records by `mlbench leaderboard`; benchmarks/README.md defines every number."
    lines = ["# Leaderboards", "", text, *_listed([table for table in tables if table.known])]
    if unknown := [table for table in tables if not table.known]:
        lines += ["", "## Incomplete or unknown data", ""]
        lines += ["These scores are not comparable with any board above.", *_listed(unknown)]
    return "\n".join(lines) + "\n"


def _listed(tables: Sequence[Table]) -> list[str]:
    lines = ["", "| data | track | runs | best | mAP |", "| --- | --- | ---: | --- | ---: |"]
    for table in tables:
        best = next(iter(table.rows), None)
        code = "" if table.current else ", made by other code"
        link = f"[{escaped(table.data_name)}{code}]({_file_name(table)}.md)"
        runs = sum(row.seeds for row in table.rows) + len(table.diverged)
        won = (best.title, f"{_score(best)} ({_interval(best)})") if best else ("-", "-")
        cells = (link, table.track, str(runs), *map(escaped, won))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _file_name(table: Table) -> str:
    return cut_name(re.sub(r"[^\w.+-]", "_", table.name).lstrip("."))
