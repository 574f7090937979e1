"""``mlbench errors RUN``: a run's mistakes with pictures, and labels that are probably wrong."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from mlbench.cli.console import Cache, Data, Results, writing
from mlbench.text import count
from mlbench.types import SuiteError

EXAMPLES = """
Examples:

  mlbench errors cc19c684 --data ~/data

  mlbench errors cc19c684 --out errors && mlbench run --datasets manifest:errors/corrections.csv
"""


def errors(
    run: Annotated[str, typer.Argument(help="The id of a run, or its beginning.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write index.html and corrections.csv to. Default: errors/ in the run's "
            "folder, where `mlbench page` finds the pictures."
        ),
    ] = None,
    data: Data = None,
    results: Results = Path("results"),
    most: Annotated[int, typer.Option(min=1, help="Pictures of each kind for a label.")] = 8,
    cache: Cache = None,
) -> None:
    """Show the confident mistakes of each label, and the labels that are probably wrong."""
    from mlbench.data.open import open_run
    from mlbench.store import Store
    from mlbench.types import KnownLabels, LabelNoise
    from mlbench_tools.deploy import mistakes
    from mlbench_tools.scoring.evaluate import local_places

    store = Store(results)
    record = store.find(run)
    if record is None:
        raise SuiteError(f"{results} has no run {run}; give an id of a board, or --results DIR")
    predictions = store.predictions(record)
    places = local_places(data, cache, "cpu", None)
    # The data set's own labels and splits, without the run's changes.
    original = {"holdout": 0.0, "label_noise": LabelNoise(), "known_labels": KnownLabels()}
    splits = open_run(record.spec.model_copy(update=original), places)
    test = mistakes.in_order(splits, predictions, record)
    folder = store.run_folder(record.run_id)
    found = mistakes.suspects(predictions, mistakes.calibration_of(folder), most)
    out = out or folder / "errors"
    with writing(out, "; name another folder with --out"):
        out.mkdir(parents=True, exist_ok=True)
        shown = {one.image for mine in found for one in mine}
        thumbnails = {i: mistakes.write_thumbnail(test.files[i], out, i) for i in sorted(shown)}
        labels = mistakes.label_entries(record, predictions, test, found, thumbnails)
        mistakes.write_page(out, record, labels)
        wrong = [one for mine in found for one in mine if one.label_error]
        corrections = mistakes.write_corrections(out, splits, test.keys, wrong)
    typer.echo(
        f"{out / 'index.html'}: {count(len(record.label_names), 'label')}, "
        f"{count(len(shown), 'picture')}\n"
        f"{corrections}: all images, first {count(len({one.image for one in wrong}), 'picture')} "
        "with doubtful labels; edit these, then use it as --datasets "
        f"{quote(f'manifest:{corrections}')}"
    )
