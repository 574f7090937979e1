"""``mlbench card MODEL``: a folder for the hub, with a model card that says what is known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench import __version__, registry
from mlbench.text import count
from mlbench.types import DEFAULT_THRESHOLD, MlbenchError, ModelInfo, SuiteError

if TYPE_CHECKING:
    from mlbench.types import RunRecord

EXAMPLES = """
Examples:

  mlbench card results/runs/cc19c684 --out shoes

  hf upload YOUR-NAME/shoes shoes
"""

LISTED = 500
"""Labels that a card lists; the model's header has them all."""


def card(
    model: Annotated[Path, typer.Argument(help="The folder of a run, or a checkpoint.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must be new or empty.")],
    licence: Annotated[
        str,
        typer.Option(
            "--license",
            help="Licence of the weights, as the hub names it; `other` until you know what the "
            "data and the initial weights allow.",
        ),
    ] = "other",
) -> None:
    """Write a model card and the model into a folder that can be uploaded as it is."""
    from mlbench.build import model_file
    from mlbench.engine.checkpoint import load

    file = model_file(model)
    info = load(file).info
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SuiteError(f"--out {out} exists and is not an empty folder; name a new one")
    text = render(info, _record(file.parent), file.name, licence)
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / file.name)
        (out / "README.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise SuiteError(f"--out {out} cannot be written ({error.strerror or error})") from error
    typer.echo(
        f"{out}: README.md and {file.name}. Read the card and say what the model is for; then "
        f"upload it with\n  hf upload YOUR-NAME/{out.resolve().name} {out}"
    )


def _record(folder: Path) -> RunRecord | None:
    """The record of the run in a folder, if it lies in a store."""
    from mlbench.store import Store

    try:
        return Store(folder.parent.parent).find(folder.name)
    except MlbenchError:
        return None


def render(info: ModelInfo, record: RunRecord | None, file: str, licence: str) -> str:
    """The card as Markdown with the hub's header.

    Args:
        info: of the model.
        record: of its run, if there is one.
        file: name of the model's file.
        licence: of the weights.
    """
    from huggingface_hub import EvalResult, ModelCardData

    spec, scores = info.spec, info.scores
    name = f"{spec.method}-{spec.settings.backbone.replace(':', '-')}"
    results = None
    if scores is not None:
        results = [
            EvalResult(
                task_type="image-classification",
                task_name="Multi-label image classification",
                dataset_type=spec.dataset,
                dataset_name=info.identity,
                dataset_split=_scored_on(info),
                metric_type="mAP",
                metric_value=round(scores.mAP, 2),
            )
        ]
    data = ModelCardData(
        license=licence,
        library_name="mlbench",
        pipeline_tag="image-classification",
        tags=["multi-label-image-classification", spec.method, spec.settings.head],
        model_name=name,
        eval_results=results,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        f"Multi-label image classification: {count(len(info.label_names), 'label')}, "
        f"{spec.settings.image_size} pixels. The head `{spec.settings.head}` on the backbone "
        f"`{spec.settings.backbone}`, trained with mlbench on {info.identity or spec.dataset}.",
        _use(file),
        _intended(),
        _metrics(info),
        _labels(info),
        _training(info, record),
        _licences(info, licence),
    ]
    return "\n\n".join(parts) + "\n"


def _scored_on(info: ModelInfo) -> str:
    return "train (held-out part)" if info.spec.holdout else "test"


def _use(file: str) -> str:
    return f"""## Use

```
pip install mlbench-mlic
mlbench predict {file} photos/ --out labels.csv
```

```python
import mlbench

model = mlbench.load("{file}")
(result,) = model(["photo.jpg"])
print(result.above, result.scores)
```"""


def _intended() -> str:
    return """## Intended use

Labelling photographs like those it was trained on, and comparing methods. It was not tested on
other kinds of pictures, nor for decisions about people. _Say here what you made it for._"""


def _metrics(info: ModelInfo) -> str:
    scores = info.scores
    if scores is None:
        return "## Metrics\n\nNot scored."
    rows = [
        ("mAP", f"{scores.mAP:.2f} (95 % interval {scores.mAP_low:.1f} to {scores.mAP_high:.1f})"),
        ("CF1, OF1 at 0.5 of the raw scores", f"{scores.CF1:.2f}, {scores.OF1:.2f}"),
        ("CP, CR", f"{scores.CP:.2f}, {scores.CR:.2f}"),
        ("OP, OR", f"{scores.OP:.2f}, {scores.OR:.2f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"## Metrics\n\nIn percent, on {info.identity}, {_scored_on(info)} split; the interval is "
        f"over its images. {count(scores.classes_left_out, 'label')} without a known positive or "
        f"negative are left out.\n\n| metric | value |\n| --- | --- |\n{table}"
    )


def _labels(info: ModelInfo) -> str:
    at = info.thresholds or (DEFAULT_THRESHOLD,) * len(info.label_names)
    pairs = list(zip(info.label_names, at, strict=True))
    listed = ", ".join(f"{_plain(name)} ({threshold:.3g})" for name, threshold in pairs[:LISTED])
    more = len(pairs) - LISTED
    rest = f", and {more:,} more, which the model's header lists" if more > 0 else ""
    how = [note for note in info.notes if "chosen on" in note]
    why = how[0] if how else "not chosen on data: `mlbench thresholds` does so"
    scores = "calibrated (Platt)" if info.calibration else "not calibrated"
    return f"## Labels and thresholds\n\nThresholds: {why}. Scores: {scores}.\n\n{listed}{rest}."


def _training(info: ModelInfo, record: RunRecord | None) -> str:
    spec, settings = info.spec, info.spec.settings
    lines = [
        f"- Track {spec.track}, seed {spec.seed}, {settings.epochs} epochs, batch "
        f"{settings.batch_size}, {settings.loss}, {settings.optimizer.name} with a learning rate "
        f"of {settings.optimizer.lr:g}.",
        f"- Initial weights of the backbone: {settings.weights}{_pretraining(info)}.",
        f"- Run {spec.run_id}, {info.created or 'date unknown'}, commit "
        f"{info.commit or 'unknown'}, mlbench {__version__}.",
    ]
    lines += [f"- {note}." for note in info.notes]
    command = f"\n\n```\n{record.command}\n```" if record is not None else ""
    return "## Training\n\n" + "\n".join(lines) + command


def _pretraining(info: ModelInfo) -> str:
    before = info.pretraining
    if before is None:
        return ""
    return f": {before.data}" + (f" ({before.labels})" if before.labels else "")


def _licences(info: ModelInfo, licence: str) -> str:
    before = info.pretraining.licence if info.pretraining else ""
    try:
        found = registry.dataset_card(registry.find("dataset", info.spec.dataset))
        data = found.licence if found else "not known"
    except MlbenchError:
        data = "not known"
    return (
        f"## Licences\n\n- Code: Apache-2.0.\n- Data ({info.spec.dataset}): {data}.\n"
        f"- Weights: {licence}; they came from initial weights with terms of their own"
        f"{f': {before}' if before else ''}."
    )


def _plain(text: str) -> str:
    """A label without Markdown's own characters."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text).replace("\n", " ")
