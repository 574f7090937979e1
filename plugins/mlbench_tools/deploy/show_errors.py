"""``mlbench errors RUN``: a run's mistakes with pictures, and labels that are probably wrong."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlbench.cli.console import Cache, Data, Results, writing
from mlbench.files import atomic_write
from mlbench.text import count
from mlbench.types import DataError, Predictions, RunRecord, SuiteError, WeightsError
from mlbench_tools.deploy.outputs import listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlbench.types import Index, Splits
    from mlbench_tools.deploy.mistakes import Suspect

EXAMPLES = """
Examples:

  mlbench errors cc19c684 --data ~/data

  mlbench errors cc19c684 --out errors && mlbench run --datasets manifest:errors/corrections.csv
"""

SIDE = 160
"""Longer side of a thumbnail, in pixels."""


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
    from mlbench_tools.deploy.mistakes import suspects
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
    test = _in_order(splits, predictions, record)
    folder = store.run_folder(record.run_id)
    found = suspects(predictions, _calibration(folder), most)
    out = out or folder / "errors"
    with writing(out, "; name another folder with --out"):
        out.mkdir(parents=True, exist_ok=True)
        shown = {one.image for mine in found for one in mine}
        thumbnails = {i: _thumbnail(test.files[i], out, i) for i in sorted(shown)}
        labels = _labels(record, predictions, test, found, thumbnails)
        _write_page(out, record, labels)
        wrong = [one for mine in found for one in mine if one.label_error]
        corrections = _write_corrections(out, splits, test.keys, wrong)
    typer.echo(
        f"{out / 'index.html'}: {count(len(record.label_names), 'label')}, "
        f"{count(len(shown), 'picture')}\n"
        f"{corrections}: all images, first {count(len({one.image for one in wrong}), 'picture')} "
        "with doubtful labels; edit these, then use it as --datasets "
        f"{quote(f'manifest:{corrections}')}"
    )


def _in_order(splits: Splits, predictions: Predictions, record: RunRecord) -> Index:
    """The images that the run was scored on, in the order of the predictions."""
    import numpy as np

    index = splits.whole_train if record.spec.holdout else splits.test
    places = {key: i for i, key in enumerate(index.keys)}
    if missing := set(predictions.keys) - set(places):
        raise DataError(
            f"{record.spec.dataset} lacks {len(missing):,} of the {len(predictions.keys):,} images "
            f"that run {record.run_id} was scored on; give the data that it was scored on"
        )
    return index.take(np.array([places[key] for key in predictions.keys]))


def _calibration(folder: Path) -> NDArray[np.float64] | None:
    """The calibration of the run's model [C, 2], if the model was kept and calibrated."""
    import numpy as np

    from mlbench.engine.checkpoint import load

    try:
        found = load(folder / "checkpoint.safetensors").info.calibration
    except WeightsError:
        return None
    return None if found is None else np.array(found)


def _thumbnail(file: Path, out: Path, image: int) -> str:
    """Write a small copy of an image; return its path in the folder, empty if it is unreadable."""
    from mlbench.data.decode import decode

    try:
        small = decode(file)
    except DataError:
        return ""
    small.thumbnail((SIDE, SIDE))
    target = out / "thumbnails" / f"{image}.jpg"
    target.parent.mkdir(exist_ok=True)
    small.save(target, quality=80)
    return f"thumbnails/{image}.jpg"


def _labels(
    record: RunRecord,
    predictions: Predictions,
    test: Index,
    found: Sequence[Sequence[Suspect]],
    thumbnails: Mapping[int, str],
) -> list[dict[str, Any]]:
    """The page's values of each label, the lowest average precision first."""
    from mlbench_tools.deploy.mistakes import confusions, curve

    names, targets = record.label_names, predictions.targets
    labels: list[dict[str, Any]] = []
    for c, confused in enumerate(confusions(predictions, names)):
        precision = record.average_precision[c] if record.average_precision else None
        labels.append(
            {
                "name": names[c],
                "ap": precision,
                "positives": int((targets[:, c] == 1).sum()),
                "curve": curve(predictions.logits[:, c], targets[:, c]),
                "confused": confused,
                "groups": _groups(found[c], names, test, thumbnails),
            }
        )
    return sorted(labels, key=lambda one: (one["ap"] is None, one["ap"]))


def _write_page(out: Path, record: RunRecord, labels: Sequence[Mapping[str, Any]]) -> None:
    """Write index.html, and errors.json, which `mlbench page` puts into the run's page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mlbench_tools.deploy"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("errors.html").render(
        title=record.spec.title, run=record.run_id, data=record.identity, labels=labels
    )
    plain = json.dumps({"started": record.started, "labels": labels}, ensure_ascii=False)
    for name, text in (("index.html", page), ("errors.json", plain)):
        with atomic_write(out / name) as part:
            part.write_text(text, encoding="utf-8")


def _groups(
    mine: Sequence[Suspect], names: Sequence[str], test: Index, thumbnails: Mapping[int, str]
) -> dict[str, list[dict[str, Any]]]:
    """Heading -> pictures."""
    import numpy as np

    groups: dict[str, list[dict[str, Any]]] = {}
    for one in mine:
        if one.label_error:
            heading = f"Label probably wrong: given as {one.kind}"
        else:
            heading = "Missed" if one.kind == "present" else "Found where it is not"
        given = [names[c] for c in np.flatnonzero(test.targets[one.image] == 1).tolist()]
        groups.setdefault(heading, []).append(
            {
                "file": thumbnails[one.image],
                "key": test.keys[one.image],
                "score": f"{one.score:.2f}",
                "given": ", ".join(given) or "no label",
            }
        )
    return groups


def _write_corrections(
    out: Path, splits: Splits, scored: Sequence[str], wrong: Sequence[Suspect]
) -> Path:
    """Write a table that ``manifest:`` reads: every image with its labels, doubtful ones first.

    A table that was edited is kept; the new one is written beside it.

    Two more columns say what to add and what to remove. If labels are unknown, which a list cannot
    say, the table has a column for each label instead of lists, and lacks these two.
    """
    import numpy as np

    names = splits.names
    add: dict[str, list[str]] = {}
    remove: dict[str, list[str]] = {}
    for one in sorted(wrong, key=lambda one: -one.wrongness):
        place = add if one.kind == "absent" else remove
        place.setdefault(scored[one.image], []).append(names[one.label])
    parts = (("test", splits.test), ("train", splits.whole_train))
    rows = [(split, *sample) for split, index in parts for sample in index]
    rows.sort(key=lambda row: row[3] not in add and row[3] not in remove)
    wide = any(bool((target < 0).any()) for _, _, target, _ in rows)
    groups = splits.groups()
    more = ["group"] if groups else []
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "split", *more, *(names if wide else ("labels", "add", "remove"))])
    for split, path, target, key in rows:
        states = ["" if state < 0 else int(state) for state in target.tolist()]
        given = [names[c] for c in np.flatnonzero(target == 1).tolist()]
        lists = [listed(one, names) for one in (given, add.get(key, ()), remove.get(key, ()))]
        group = [groups.get(key, "")] if groups else []
        table.writerow([str(path.resolve()), split, *group, *(states if wide else lists)])
    content = text.getvalue().encode()
    numbers = itertools.chain([""], map("-{}".format, itertools.count(2)))
    files = (out / f"corrections{number}.csv" for number in numbers)
    file = next(one for one in files if not one.exists() or one.read_bytes() == content)
    with atomic_write(file) as part:
        part.write_bytes(content)
    return file
