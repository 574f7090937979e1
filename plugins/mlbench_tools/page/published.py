"""The literature's scores: values, and reading them from ``results/published/<dataset>.yaml``.

The README there says what the files hold. How they stand beside a board is in ``tiers``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationError

from mlbench.metrics.protocols import find
from mlbench.types import MeasureError, Scores, StoreError, Value

METRICS = tuple(
    name
    for name, field in Scores.model_fields.items()
    if field.annotation is float and name not in ("mAP_low", "mAP_high")
)
"""What a published score can be a score by."""
Status = Literal["verified", "secondary"]
Percent = Annotated[float, Field(strict=True, ge=0, le=100)]


class PublishedError(StoreError):
    """A file of published scores is malformed; the text names file, line and remedy."""


class Score(Value):
    """One number in percent, with the place where it was read."""

    metric: str
    value: float
    status: Status
    source: str


class Conditions(Value):
    """How a published score was made; None where its source does not tell.

    Attributes:
        method: plugin name where mlbench has the method.
        loss: where the loss is what the paper is about.
        by: whether the method's authors made it, or others did with their method.
        backbone: plugin name where mlbench has it.
        image_size: pixels of a side at test time.
        trained_at: pixels of a side in training, where they were others.
        pretraining: what the backbone's weights were trained on.
        extra_data: labelled data beyond that; empty for none.
        protocol: how its mAP is taken, a name of ``mlbench.metrics.protocols``.
        test_images: how many images were scored.
        gmacs: what the source gives for an image.
    """

    method: str
    loss: str | None = None
    by: Literal["authors", "others"] = "authors"
    backbone: str | None
    image_size: PositiveInt | None
    trained_at: PositiveInt | None = None
    pretraining: str | None
    extra_data: str = ""
    protocol: str | None
    test_images: PositiveInt | None
    gmacs: NonNegativeFloat | None = None
    note: str = ""


class Published(Conditions):
    """What one model of the literature scores on one data set.

    Attributes:
        dataset: plugin name.
        boards: identities of the boards that it may stand beside.
        scores: one per metric, at least one.
        line: of the file, where it stands.
    """

    dataset: str
    boards: tuple[str, ...]
    scores: tuple[Score, ...]
    line: int

    def score(self, metric: str) -> Score | None:
        """Its score by a metric, a name of ``METRICS``; None where there is none."""
        return next((score for score in self.scores if score.metric == metric), None)


class _Entry(Conditions):
    """A row as it stands in a file: source -> metric -> percent, apart by status."""

    verified: dict[str, dict[str, Percent]] = {}
    secondary: dict[str, dict[str, Percent]] = {}

    def scores(self, sources: dict[str, str]) -> Iterator[Score]:
        for status in get_args(Status):
            for source, values in getattr(self, status).items():
                if source not in sources:
                    raise ValueError(f"source {source!r} is none of {', '.join(sources)}; add it")
                for metric, value in values.items():
                    yield Score(metric=metric, value=value, status=status, source=sources[source])


class _File(Value):
    dataset: str
    boards: tuple[str, ...]
    sources: dict[str, str]
    rows: tuple[_Entry, ...]


def load(folder: Path) -> tuple[Published, ...]:
    """All published scores of a folder, in the order of its files.

    Args:
        folder: ``results/published``; one that does not exist holds nothing.

    Raises:
        PublishedError: a file is malformed, or a row stands in it twice.
    """
    return tuple(row for file in sorted(folder.glob("*.yaml")) for row in _read(file))


def _read(file: Path) -> list[Published]:
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, yaml.SafeLoader)
        _refuse_repeated_keys(node)
        plain = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise PublishedError(f"{file} cannot be read ({error}); restore it") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file} line {mark.line + 1}" if mark else str(file)
        said = getattr(error, "problem", None) or error
        raise PublishedError(f"{where} is not YAML: {said}; mend the line") from error
    lines = _lines(node)
    try:
        found = _File.model_validate(plain)
    except ValidationError as error:
        raise PublishedError(_explain(file, lines, error)) from error
    if found.dataset != file.stem:
        raise PublishedError(f"{file} is of dataset {found.dataset!r}; give both one name")
    used = {s for row in found.rows for s in (*row.verified, *row.secondary)}
    if idle := set(found.sources) - used:
        raise PublishedError(f"{file}: no row has source {', '.join(sorted(idle))}; remove it")
    rows = []
    for entry, line in zip(found.rows, lines, strict=True):
        try:
            rows.append(_published(entry, found, line))
            _refuse_repetition(rows)
        except (ValueError, MeasureError) as error:
            raise PublishedError(f"{file} line {line}: {error}") from error
    return rows


def _published(entry: _Entry, file: _File, line: int) -> Published:
    scores = tuple(entry.scores(file.sources))
    metrics = [score.metric for score in scores]
    if not scores:
        raise ValueError("no score; give some under verified or secondary, or remove the row")
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")
        if metrics.count(metric) > 1:
            raise ValueError(f"{metric} stands twice; keep that of the better source")
    if entry.protocol is not None:
        find(entry.protocol)
    fields = entry.model_dump(exclude={"verified", "secondary"})
    return Published(**fields, dataset=file.dataset, boards=file.boards, scores=scores, line=line)


def _refuse_repetition(rows: list[Published]) -> None:
    """Two rows under the same conditions, notes included, are one, or one of them is wrong."""
    *before, last = (row.model_dump(exclude={"scores", "line", "gmacs"}) for row in rows)
    if last in before:
        first = rows[before.index(last)].line
        raise ValueError(
            f"the row of line {first} again; join the two, or say in note how they differ"
        )


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    """YAML would take the last of them without a word."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_repeated_keys(child)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
            _refuse_repeated_keys(value)


def _lines(node: yaml.Node | None) -> list[int]:
    """Where each row begins, from 1."""
    if not isinstance(node, yaml.MappingNode):
        return []
    found = [value for key, value in node.value if key.value == "rows"]
    rows: list[Any] = found[0].value if found and isinstance(found[0], yaml.SequenceNode) else []
    return [row.start_mark.line + 1 for row in rows]


def _explain(file: Path, lines: list[int], error: ValidationError) -> str:
    first = error.errors()[0]
    where, location = str(file), list(first["loc"])
    if len(location) > 1 and location[0] == "rows":
        where += f" line {lines[int(location[1])]}"
        location = location[2:]
    name = ".".join(str(part) for part in location) or "the file"
    known = _Entry if location != list(first["loc"]) else _File
    value = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
    return f"{where}: {name}{value}: {first['msg']}; keys are {', '.join(known.model_fields)}"
