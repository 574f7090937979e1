"""The page of a run and the page of a method."""

from __future__ import annotations

import json
import math
import shlex
from base64 import b64encode
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from mlbench import run_file
from mlbench.numbers import outdated
from mlbench.types import Recipe, RunRecord
from mlbench_tools.page.collect import Site
from mlbench_tools.page.derived import Derived
from mlbench_tools.page.templating import board_address, facts, render
from mlbench_tools.scoring.protocols import find
from mlbench_tools.scoring.ranking import wilson


class LabelLine(NamedTuple):
    """A label, its average precision in percent, and how many images have it.

    Attributes:
        low, high: the 95 % interval over test images, in percent; None without ``tested``.
        tested: test images with the label; None without predictions.
        trained: training images with the label; None if the record does not say.
    """

    name: str
    ap: float
    low: float | None = None
    high: float | None = None
    tested: int | None = None
    trained: int | None = None


# ---------------------------------------------------------------------------------- page of a run
def run_page(
    site: Site,
    run_id: str,
    board: str,
    seeds: Sequence[str],
    derived: Derived | None,
    problem: str,
    folder: Path,
) -> str:
    """The text of a run's page; what `mlbench errors` left is in the ``folder`` of the run."""
    record = site.records[run_id]
    method = site.recipes.get(record.spec.method)
    command = f"mlbench errors {run_id} --data DIR --results {shlex.quote(str(folder.parents[1]))}"
    mistakes, damaged = read_mistakes(folder, record, command)
    labels = label_lines(record, derived.positives if derived else ())
    scored = {label.name for label in labels}
    protocols = derived.protocols if derived else {}
    curve = [log for log in record.epochs if math.isfinite(log.loss) and log.loss > 0]
    return render(
        "run.html",
        record=record,
        other_code=outdated(record.numbers),
        scores=record.scores,
        cost=record.efficiency,
        seeds=seeds,
        board=board_address(board, record.spec.track),
        board_title=f"{board}, {record.spec.track} track",
        command=command,
        curve=curve if len(curve) > 1 else [],
        labels=labels,
        tested=any(label.tested is not None for label in labels),
        trained=any(label.trained is not None for label in labels),
        absent=[n for n in record.label_names if n not in scored] if labels else [],
        repeat=run_file.repeat_command(record, f"{run_id}.yaml"),
        recipe=None if record.spec.checkpoint else run_file.to_yaml(record),
        derived=derived,
        problem=problem,
        mistakes=mistakes,
        damaged=damaged,
        protocols=[(find(name), values) for name, values in protocols.items()],
        bibtex=method.bibtex.strip() if method else "",
        **_settings(record),
    )


def read_mistakes(
    folder: Path, record: RunRecord, command: str
) -> tuple[list[dict[str, Any]], str]:
    """What the ``command`` left in the folder of a run, with thumbnails as data URLs.

    Returns:
        Name, AP, curve, confusions and pictures of each label, empty without a file of this record;
        and why the file cannot be read, empty unless it is damaged.
    """
    file = folder / "errors" / "errors.json"
    if not file.is_file():
        return [], ""
    try:
        found = json.loads(file.read_bytes())
        labels: list[dict[str, Any]] = found["labels"] if found["started"] == record.started else []
        for one in (one for label in labels for group in label["groups"].values() for one in group):
            thumbnail = file.parent / "thumbnails" / Path(one["file"]).name
            content = thumbnail.read_bytes() if one["file"] else b""
            one["file"] = f"data:image/jpeg;base64,{b64encode(content).decode()}" if content else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        remedy = f"write it again by `{command}`, or delete its folder"
        return [], f"{file} cannot be read ({error}); {remedy}"
    return labels, ""


def label_lines(record: RunRecord, tested: Sequence[int]) -> list[LabelLine]:
    """The labels of a run that have a score, weakest first."""
    lines = []
    for name, ap, positives, trained in zip_longest(
        record.label_names, record.average_precision, tested, record.train_positives or ()
    ):
        if ap is not None and math.isfinite(ap):
            low, high = label_interval(ap, positives) if positives else (None, None)
            lines.append(LabelLine(name, ap, low, high, positives, trained))
    return sorted(lines, key=lambda line: line.ap)


def label_interval(ap: float, positives: int) -> tuple[float, float]:
    """The 95 % interval of a label's average precision, as if it were a fraction of its positives.

    Average precision p is a mean over n positives of a number in [0, 1], and its variance is about
    p (1 - p) / n (Boyd, Eng and Page, 2013, *Area under the precision-recall curve*); Wilson's form
    stays within bounds and does not shrink to nothing at 100 %. ``ap`` and both bounds are in
    percent; there is at least one positive.
    """
    low, high = wilson(ap / 100, positives)
    return 100 * low, 100 * high


def _settings(record: RunRecord) -> dict[str, list[tuple[str, str]]]:
    spec = record.spec.model_dump(mode="json")
    changed = record.spec.model_dump(mode="json", exclude_defaults=True)
    plain = record.model_dump(
        mode="json",
        include={"train_images", "validation_images", "test_images", "coverage", "checkpoint"},
    )
    costs = record.efficiency.model_dump(mode="json") if record.efficiency else {}
    for latency in costs.pop("latency", ()):
        costs[f"latency at batch {latency.pop('batch_size')}"] = latency
    return {
        "changed": facts(changed.pop("settings")) + facts(changed),
        "all_settings": facts(spec.pop("settings")) + facts(spec),
        "costs": facts(costs),
        "environment": facts(record.environment),
        "rest": facts({"identity": record.identity, **plain, "seconds": record.seconds}),
    }


# ------------------------------------------------------------------------------- page of a method
def method_page(site: Site, name: str) -> str:
    """The text of a method's page."""
    card = site.recipes.get(name)
    plain = card.settings.model_dump(mode="json", exclude_defaults=True) if card else {}
    return render(
        "method.html",
        name=name,
        recipe=card,
        problem=site.problems.get(name, "No recipe of this name is installed here."),
        boards=[
            {
                "title": f"{board}, {table.track} track",
                "link": board_address(board, table.track),
                "size": len(table.rows),
                "rows": rows,
            }
            for table, board in zip(site.tables, site.board_names, strict=True)
            if (rows := [row for row in table.rows if row.method == name])
        ],
        options=facts(site.options.get(name, {})),
        published=facts(plain),
        changed=_changed_settings(card) if card else [],
    )


def _changed_settings(card: Recipe) -> list[tuple[str, list[tuple[str, str]]]]:
    plain = card.model_dump(mode="json", include={"per_dataset", "dataset_options", "tuned"})
    titles = {
        "per_dataset": "Other settings on {}",
        "dataset_options": "Options of the data set {}",
        "tuned": "Tuned for the {} track under the equal budget",
    }
    return [
        (titles[kind].format(name), facts(changes))
        for kind, groups in plain.items()
        for name, changes in groups.items()
    ]
