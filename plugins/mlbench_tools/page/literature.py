"""Results of the literature, read from ``published/<dataset>.yaml``, next to our results.

The README there says what the files hold. Published results are never ranked with ours. A
difference is given only to a row of the published track with the same method, backbone, image
size and test images, by the same definition of mAP, and only if the authors had no extra data.
The page says what else may differ (pretraining, the choice of the epoch on the test split).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple, get_args

import yaml
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from mlbench.boards.rows import Row, Table
from mlbench.files import read_yaml
from mlbench.text import first_error
from mlbench.types import MeasureError, Scores, StoreError, Value
from mlbench_tools.page.collect import Site
from mlbench_tools.page.derived import Derived
from mlbench_tools.page.templating import NONE, address, number
from mlbench_tools.scoring.protocols import find

METRICS = tuple(
    name
    for name, field in Scores.model_fields.items()
    if field.annotation is float and name not in ("mAP_low", "mAP_high")
)
"""The metrics of published scores."""
FOLDER = Path(__file__).parent / "published"
CANONICAL = "ap"
"""The protocol of a board's mAP."""


# ------------------------------------------------------------------------------------------ files
def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; the metrics are {', '.join(METRICS)}")
    return name


def _known_protocol(name: str) -> str:
    try:
        find(name)
    except MeasureError as error:
        raise ValueError(str(error)) from error
    return name


Percent = Annotated[float, Field(strict=True, ge=0, le=100)]
Status = Literal["verified", "secondary"]
ScoresBySource = dict[str, dict[Annotated[str, AfterValidator(_known_metric)], Percent]]


class PublishedScore(NamedTuple):
    """One number in percent, and the place where it was read."""

    metric: str
    value: float
    status: Status
    source: str


class PublishedResult(Value):
    """The scores of one model of the literature; None where its source does not say.

    Attributes:
        method: plugin name, if mlbench has the method.
        loss: the loss, if it is the paper's subject.
        by: who obtained the scores: the method's authors, or others with their method.
        backbone: plugin name, if mlbench has the backbone.
        image_size: pixels of a side at test time.
        trained_at: pixels of a side in training, if they differ.
        pretraining: what the backbone's weights were trained on.
        extra_data: labelled data beyond that; empty for none.
        labels_kept: which training labels were kept, in words; empty for all.
        protocol: the definition of its mAP, a name of ``mlbench_tools.scoring.protocols``.
        test_images: number of images that were scored.
        gmacs: per image, as the source gives it.
        verified, secondary: source -> metric -> percent.
        dataset, boards, sources: from its file: plugin name, identities of the boards that it may
            be compared with, and the sources in full.
    """

    method: str
    loss: str | None = None
    by: Literal["authors", "others"] = "authors"
    backbone: str | None
    image_size: PositiveInt | None
    trained_at: PositiveInt | None = None
    pretraining: str | None
    extra_data: str = ""
    labels_kept: str = ""
    protocol: Annotated[str, AfterValidator(_known_protocol)] | None
    test_images: PositiveInt | None
    gmacs: NonNegativeFloat | None = None
    note: str = ""
    verified: ScoresBySource = {}
    secondary: ScoresBySource = {}
    dataset: str = ""
    boards: tuple[str, ...] = ()
    sources: dict[str, str] = {}

    @property
    def scores(self) -> list[PublishedScore]:
        """All scores, the verified ones first."""
        return [
            PublishedScore(metric, value, status, self.sources[source])
            for status in get_args(Status)
            for source, values in getattr(self, status).items()
            for metric, value in values.items()
        ]

    def score(self, metric: str) -> PublishedScore | None:
        """Its score by a metric; None if there is none."""
        return next((score for score in self.scores if score.metric == metric), None)


class _PublishedFile(Value):
    dataset: str
    boards: tuple[str, ...]
    sources: dict[str, str]
    rows: tuple[PublishedResult, ...]

    @model_validator(mode="after")
    def _every_row_has_a_listed_source(self) -> _PublishedFile:
        for i, row in enumerate(self.rows):
            used = {*row.verified, *row.secondary}
            if not used or used - set(self.sources):
                raise ValueError(f"row {i} ({row.method}) has no score, or one without a source")
        return self


def load(folder: Path = FOLDER) -> list[PublishedResult]:
    """All published results of a folder, in the order of its files.

    Raises:
        StoreError: a file is malformed.
    """
    return [
        row.model_copy(update=file.model_dump(exclude={"rows"}))
        for file in map(_read, sorted(folder.glob("*.yaml")))
        for row in file.rows
    ]


def _read(file: Path) -> _PublishedFile:
    try:
        return _PublishedFile.model_validate(read_yaml(file))
    except ValidationError as error:
        raise StoreError(f"{file}: {first_error(error)}; correct the file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StoreError(f"{file} cannot be read as YAML: {error}; correct the file") from error


# ------------------------------------------------------------------------------------- comparison
def literature_lines(site: Site, derived: Mapping[str, Derived]) -> list[dict[str, Any]]:
    """The lines of the table: one per published result, or per row of ours to compare it with."""
    methods = set(site.methods)
    ordered = sorted(
        site.published, key=lambda r: (r.dataset, r.method, r.backbone or "", r.image_size or 0)
    )
    return [
        {
            **_theirs(result),
            "page": address("method", result.method) if result.method in methods else None,
            **_ours(result, row, derived),
        }
        for result in ordered
        for row in _comparable(result, site.tables)
    ]


def _comparable(result: PublishedResult, tables: Iterable[Table]) -> list[Row | None]:
    """Our rows under the same conditions, on whole editions of the data set; else one None."""
    rows: list[Row | None] = [
        row
        for table in tables
        if table.track == "published"
        and table.current
        and (table.tier, table.init, table.saw) == ("own", "", ())
        and table.labels is None
        and table.test_images == result.test_images
        and re.sub(r"-unknown-[0-9a-f-]+$", "", table.identity) in result.boards
        for row in table.rows
        if (row.method, row.backbone, row.image_size)
        == (result.method, result.backbone, result.image_size)
        and result.trained_at in (None, row.image_size)
        and result.loss in (None, row.loss)
        and not (result.extra_data or result.labels_kept)
    ]
    return rows or [None]


def _theirs(result: PublishedResult) -> dict[str, Any]:
    by = "" if result.by == "authors" else " (by others)"
    return {
        "dataset": result.dataset,
        "method": result.method + (f" with {result.loss}" if result.loss else "") + by,
        "backbone": result.backbone or NONE,
        "size": result.image_size or NONE,
        "pretraining": result.pretraining or NONE,
        "extra": result.extra_data
        or (f"none; labels kept: {result.labels_kept}" if result.labels_kept else ""),
        **{metric: _printed(result.score(metric)) for metric in ("mAP", "CF1", "OF1")},
        "protocol": result.protocol or "not stated",
        "status": ", ".join(dict.fromkeys(score.status for score in result.scores)),
        "sources": list(dict.fromkeys(score.source for score in result.scores)),
    }


def _printed(score: PublishedScore | None) -> str:
    """A score as its source prints it, with at least one decimal: ``80.0``, ``88.75``."""
    if score is None:
        return NONE
    short = f"{score.value:g}"
    return short if "." in short else f"{score.value:.1f}"


def _ours(
    result: PublishedResult, row: Row | None, derived: Mapping[str, Derived]
) -> dict[str, Any]:
    """Our mAP by the protocol of the published one, and the difference in points."""
    ours = None if row is None else _mean(row, result.protocol, derived)
    theirs = result.score("mAP")
    return {
        "run": address("run", row.run_ids[0]) if row else None,
        "ours": "run" if ours is None else number(ours),
        "difference": NONE if ours is None or theirs is None else f"{ours - theirs.value:+.2f}",
    }


def _mean(row: Row, protocol: str | None, derived: Mapping[str, Derived]) -> float | None:
    """The mean mAP of a row's seeds by a protocol; None if some seed has none."""
    if protocol == CANONICAL:
        return row.mAP
    try:
        return fmean(derived[run_id].protocols[protocol or ""]["mAP"] for run_id in row.run_ids)
    except KeyError:
        return None
