"""``mlbench card MODEL``: a folder for the hub, with a model card that says what is known."""

from __future__ import annotations

import shutil
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench import __version__, registry
from mlbench.boards.markup import escaped
from mlbench.cli.console import writing
from mlbench.text import count
from mlbench.types import DEFAULT_THRESHOLD, IMPORTED, MlbenchError, ModelInfo, SuiteError

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

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
    with writing(f"--out {out}", "; name another folder"):
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / file.name)
        (out / "README.md").write_text(text, encoding="utf-8")
    typer.echo(
        f"{out}: README.md and {file.name}. Read the card and say what the model is for; then "
        f"upload it with\n  hf upload {quote('YOUR-NAME/' + out.resolve().name)} {quote(str(out))}"
    )


def _record(folder: Path) -> RunRecord | None:
    """The record of the run in a folder, if it lies in a store."""
    from mlbench.store import Store

    try:
        return Store(folder.parent.parent).find(folder.name)
    except MlbenchError:
        return None


def render(info: ModelInfo, record: RunRecord | None, file: str, licence: str) -> str:
    """The card of a model as Markdown with the hub's header; it names the model's file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    scored_on = "train (held-out part)" if info.spec.holdout else "test"
    at = info.thresholds or (DEFAULT_THRESHOLD,) * len(info.label_names)
    lines = [f"; slope {a:.5g}, offset {b:.5g}" for a, b in info.calibration or ()]
    numbers = zip(info.label_names, at, lines or [""] * len(at), strict=True)
    environment = Environment(
        loader=PackageLoader("mlbench_tools.deploy"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["count"] = count
    return environment.get_template("card.md").render(
        header=_header(info, scored_on, licence),
        info=info,
        spec=info.spec,
        settings=info.settings,
        file=file,
        scored_on=scored_on,
        chosen=next((n for n in info.notes if "chosen on" in n), "not chosen on data"),
        labels=[f"{escaped(label)} ({at:.3g}{line})" for label, at, line in numbers][:LISTED],
        default=DEFAULT_THRESHOLD,
        more=len(info.label_names) - LISTED,
        imported=info.spec.data.startswith(IMPORTED),
        record=record,
        version=__version__,
        data_licence=_data_licence(info.spec.dataset),
        licence=licence,
    )


def _header(info: ModelInfo, scored_on: str, licence: str) -> ModelCardData:
    """What the hub reads of a card: the model's name, licence, tags and score."""
    from huggingface_hub import EvalResult, ModelCardData

    spec = info.spec
    score = info.scores and EvalResult(
        task_type="image-classification",
        task_name="Multi-label image classification",
        dataset_type=spec.dataset,
        dataset_name=info.identity,
        dataset_split=scored_on,
        metric_type="mAP",
        metric_value=round(info.scores.mAP, 2),
    )
    return ModelCardData(
        license=licence,
        library_name="mlbench",
        pipeline_tag="image-classification",
        tags=["multi-label-image-classification", spec.method, spec.settings.head],
        model_name=f"{spec.method}-{spec.settings.backbone.replace(':', '-')}",
        eval_results=[score] if score else None,
    )


def _data_licence(dataset: str) -> str:
    try:
        found = registry.dataset_card(registry.find("dataset", dataset))
    except MlbenchError:
        found = None
    return found.licence if found else "not known"
