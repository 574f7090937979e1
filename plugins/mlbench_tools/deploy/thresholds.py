"""``mlbench thresholds RUN``: calibrate a model and choose its thresholds on held-out images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import AsJson, console, errors, plain_table
from mlbench.text import count
from mlbench.types import Predictions, RunRecord, SuiteError

if TYPE_CHECKING:
    from mlbench_tools.deploy.calibration import Expectation, Fit

EXAMPLES = """
Examples:

  mlbench run --plugins gap --datasets manifest:photos.csv --set selection=validation

  mlbench thresholds results/runs/cc19c684 --target f1 --per-label

  mlbench thresholds results/runs/cc19c684 --target precision=0.95
"""


def thresholds(
    run: Annotated[Path, typer.Argument(help="The folder of a run, as in results/runs/cc19c684.")],
    target: Annotated[
        str, typer.Option(help="f1, precision=P (most recall at it), or recall=R.")
    ] = "f1",
    per_label: Annotated[
        bool, typer.Option("--per-label", help="A threshold for each label, not one for all.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Calibrate a model, choose its thresholds on held-out images, and store both in it."""
    from mlbench.build import model_file
    from mlbench.engine.checkpoint import Checkpoint, load
    from mlbench_tools.deploy.calibration import Target, expect, fit

    wanted = Target.parse(target)
    file = model_file(run)
    checkpoint = load(file)
    record, held_out = _held_out(file.parent)
    refit = partial(fit, target=wanted, per_label=per_label)
    found = refit(held_out.logits, held_out.targets)
    rows = expect(held_out.logits, held_out.targets, refit)
    images = count(len(held_out.keys), "held-out image")
    note = f"thresholds for {target}{' of each label' if per_label else ''} chosen on {images}"
    info = checkpoint.info.model_copy(
        update={
            "calibration": found.calibration,
            "thresholds": found.thresholds,
            "notes": (*(n for n in checkpoint.info.notes if "chosen on" not in n), note),
        }
    )
    try:
        Checkpoint(checkpoint.weights, info).save(file)
    except OSError as error:
        raise SuiteError(f"{file} cannot be written ({error.strerror or error})") from error
    if as_json:
        typer.echo(json.dumps(_as_data(record, found, rows), indent=1))
    else:
        _show(record, found, rows, images)
        errors.print(f"stored in {file}", markup=False, highlight=False)


def _held_out(folder: Path) -> tuple[RunRecord, Predictions]:
    """The record of a run, and its predictions on images that it was not trained on.

    Raises:
        SuiteError: the run held no training images out.
        StoreError: its record or its predictions are missing or damaged.
    """
    from mlbench.store import Store

    store = Store(folder.parent.parent)
    record = store.find(folder.name)
    if record is None:
        raise SuiteError(
            f"{store.root} has no record of run {folder.name}; give the folder of a run in the "
            "results that `mlbench run` wrote, as in results/runs/ID"
        )
    predictions = store.predictions(record)
    if predictions.validation is not None:
        return record, predictions.validation
    if record.spec.holdout:
        return record, predictions
    raise SuiteError(
        f"run {record.run_id} held no training images out, and thresholds that are chosen on test "
        "images make its scores worthless; run it again with --set selection=validation or "
        "--set holdout=0.2"
    )


Rows = list[tuple["Expectation", "Expectation"]]


def _as_data(record: RunRecord, found: Fit, rows: Rows) -> dict[str, object]:
    names = ("all labels", *record.label_names)
    both = {
        name: {"precision": vars(precision), "recall": vars(recall)}
        for name, (precision, recall) in zip(names, rows, strict=True)
    }
    thresholds = dict(zip(record.label_names, found.thresholds, strict=True))
    return {"run": record.run_id, "thresholds": thresholds, "expected": both}


def _show(record: RunRecord, found: Fit, rows: Rows, images: str) -> None:
    columns = ("label", "threshold", "precision", "recall", "positives")
    table = plain_table(columns, right=columns[1:])
    names = ("all labels", *record.label_names)
    at = ("", *(f"{threshold:.3f}" for threshold in found.thresholds))
    for name, threshold, (precision, recall) in zip(names, at, rows, strict=True):
        table.add_row(name, threshold, _percent(precision), _percent(recall), f"{recall.of:,}")
    console.print(table)
    few = [n for n, shared in zip(record.label_names, found.shared, strict=True) if shared]
    if few:
        console.print(
            f"{count(len(few), 'label')} with too few images took what fits all labels together: "
            f"{', '.join(few[:8])}{' ...' if len(few) > 8 else ''}",
            markup=False,
            highlight=False,
        )
    console.print(
        f"Expected on new images of the same kind, in percent with 95 % intervals: fitted to four "
        f"fifths of {images}, judged on the rest.",
        markup=False,
        highlight=False,
    )


def _percent(one: Expectation) -> str:
    value = "-" if one.of == 0 else f"{100 * one.value:.1f}"
    return f"{value} [{100 * one.low:.0f}, {100 * one.high:.0f}]"
