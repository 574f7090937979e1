"""``mlbench thresholds RUN``: calibrate a model and choose its thresholds on held-out images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import AsJson, Data, Device, console, errors, plain_table, writing
from mlbench.text import count, shorten
from mlbench.types import Predictions, RunRecord, SuiteError

if TYPE_CHECKING:
    from mlbench.store import Store
    from mlbench_tools.deploy.calibration import Expectation, Fit, Target

EXAMPLES = """
Examples:

  mlbench run --plugins gap --datasets manifest:photos.csv --set selection=validation

  mlbench thresholds results/runs/cc19c684 --target f1 --per-label

  mlbench thresholds results/runs/cc19c684 --target precision=0.95

  mlbench thresholds results/runs/cc19c684 --folds 5 --data ~/data
"""


def thresholds(
    run: Annotated[Path, typer.Argument(help="The folder of a run, as in results/runs/cc19c684.")],
    target: Annotated[
        str, typer.Option(help="f1, precision=P (most recall at it), or recall=R.")
    ] = "f1",
    per_label: Annotated[
        bool, typer.Option("--per-label", help="A threshold for each label, not one for all.")
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2, help="For a run that held nothing out: train this many times without a part."
        ),
    ] = None,
    data: Data = None,
    weights: Annotated[
        str | None, typer.Option(help="With --folds: the weights file of the backbone, if any.")
    ] = None,
    words: Annotated[
        str | None, typer.Option(help="With --folds: the file of label vectors, if any.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="With --folds: the model that the run started from, if any.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Calibrate a model, choose its thresholds on held-out images, and store both in it."""
    from mlbench.build import model_file
    from mlbench.engine.checkpoint import Checkpoint, load
    from mlbench.suite import Suite
    from mlbench_tools.deploy.calibration import Target, assert_enough, expect, fit, judge
    from mlbench_tools.deploy.folds import predict_folds

    wanted = Target.parse(target)
    file = model_file(run)
    checkpoint = load(file)
    store, record = _record(file.parent)
    if folds is None:
        held_out = _held_out(store, record)
    else:
        named = {"weights": weights, "words": words or (), "init": init, "data": data}
        elsewhere = {"results": store.root / "folds", "keep": "none", "device": device}
        if record.spec.track != "probe":  # whose features are computed once and shared
            minutes = (folds - 1) * record.seconds.get("training", 0.0) / 60
            errors.print(
                f"{folds} trainings of the {record.spec.track} track, about {minutes:.0f} minutes "
                "on the machine of the run; folds are cheap in the probe track only"
            )
        held_out = predict_folds(record, folds, Suite(**named, **elsewhere))
    assert_enough(held_out.targets)
    refit = partial(fit, target=wanted, per_label=per_label)
    found = refit(held_out.logits, held_out.targets)
    rows = expect(held_out.logits, held_out.targets, refit)
    missed = _missed(wanted, record.label_names, per_label, found, held_out)
    on_test = None
    if not record.spec.holdout:  # else its predictions are of the images that were held out
        test = store.predictions(record)
        on_test = judge(found.present(test.logits), test.targets)
    images = count(len(held_out.keys), "held-out image")
    images += f" (of {folds} folds)" if folds else ""
    note = f"thresholds for {target}{' of each label' if per_label else ''} chosen on {images}"
    info = checkpoint.info.model_copy(
        update={
            "calibration": found.calibration,
            "thresholds": found.thresholds,
            "notes": (*(n for n in checkpoint.info.notes if "chosen on" not in n), note),
        }
    )
    if as_json:
        typer.echo(json.dumps(_as_data(record, found, rows, on_test, missed), indent=1))
    else:
        _show(record, found, rows, images)
        few = [n for n, shared in zip(record.label_names, found.shared, strict=True) if shared]
        _remark(target, few, missed, on_test)
    with writing(file, "; give write permission there, or name the run in a copy of the results"):
        Checkpoint(checkpoint.weights, info).save(file)
    errors.print(f"stored in {file}")


def _record(folder: Path) -> tuple[Store, RunRecord]:
    """The store that a run's folder is in, and its record."""
    from mlbench.store import Store

    store = Store(folder.parent.parent)
    record = store.find(folder.name)
    if record is None:
        raise SuiteError(
            f"{store.root} has no record of run {folder.name}; give the folder of a run in the "
            "results that `mlbench run` wrote, as in results/runs/ID"
        )
    return store, record


def _held_out(store: Store, record: RunRecord) -> Predictions:
    """The predictions of a run on images that it was not trained on."""
    predictions = store.predictions(record)
    if predictions.validation is not None:
        return predictions.validation
    if record.spec.holdout:
        return predictions
    raise SuiteError(
        f"run {record.run_id} held no training images out, and thresholds that are chosen on test "
        "images make its scores worthless; give --folds 5, or run it again with "
        "--set selection=validation or --set holdout=0.2"
    )


Rows = list[tuple["Expectation", "Expectation"]]


def _missed(
    target: Target, names: Sequence[str], per_label: bool, found: Fit, held_out: Predictions
) -> list[str]:
    """Labels whose threshold misses the target on the very images that it was chosen on."""
    from mlbench_tools.deploy.calibration import judge

    rows = judge(found.present(held_out.logits), held_out.targets)
    reached = [target.reached(precision.value, recall.value) for precision, recall in rows]
    if not per_label:
        return [] if reached[0] else ["all labels"]
    own = zip(names, reached[1:], found.shared, strict=True)
    return [name for name, enough, shared in own if not (enough or shared)]


def _as_data(
    record: RunRecord, found: Fit, rows: Rows, on_test: Rows | None, missed: list[str]
) -> dict[str, object]:
    names = ("all labels", *record.label_names)

    def by_label(rows: Rows) -> dict[str, object]:
        both = zip(names, rows, strict=True)
        return {name: {"precision": plain(p), "recall": plain(r)} for name, (p, r) in both}

    def plain(one: Expectation) -> dict[str, object]:
        return vars(one) | ({} if one.of else {"value": None})  # JSON has no NaN

    return {
        "run": record.run_id,
        "thresholds": dict(zip(record.label_names, found.thresholds, strict=True)),
        "expected": by_label(rows),
        "test": on_test and by_label(on_test),
        "missed": missed,
    }


def _show(record: RunRecord, found: Fit, rows: Rows, images: str) -> None:
    columns = ("label", "threshold", "precision", "recall", "positives")
    table = plain_table(columns, right=columns[1:])
    names = ("all labels", *record.label_names)
    at = ("", *(f"{threshold:.3f}" for threshold in found.thresholds))
    for name, threshold, (precision, recall) in zip(names, at, rows, strict=True):
        table.add_row(name, threshold, _percent(precision), _percent(recall), f"{recall.of:,}")
    console.print(table)
    _say(
        f"Expected on new images of the same kind, in percent with 95 % intervals: fitted to four "
        f"fifths of {images}, judged on the rest."
    )


def _remark(target: str, few: list[str], missed: list[str], on_test: Rows | None) -> None:
    if few:
        _say(
            f"{count(len(few), 'label')} under the common calibration (too few positives or "
            f"negatives, or scores that do not separate them): {shorten(few, 8)}"
        )
    if missed:
        _say(f"{target} is out of reach, and this is the nearest, for: {shorten(missed, 8)}")
    if on_test:
        precision, recall = map(_percent, on_test[0])
        _say(f"On the test images, all labels: precision {precision}, recall {recall}.")


def _say(text: str) -> None:
    console.print(text, highlight=False)


def _percent(one: Expectation) -> str:
    value = "-" if one.of == 0 else f"{100 * one.value:.1f}"
    return f"{value} [{100 * one.low:.0f}, {100 * one.high:.0f}]"
