"""How a method's authors train it, and what became of their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import (
    Field,
)
from pydantic_core import CoreSchema, core_schema

from mlbench.types.settings import Settings
from mlbench.types.values import Track, Value

if TYPE_CHECKING:
    from torch import Tensor


class Reported(Value):
    """A score of the literature, with where it was read and how far it is verified."""

    dataset: str
    metric: str
    value: float
    source: str
    status: Literal["verified", "secondary"]
    note: str = ""

    @classmethod
    def table(cls, fields: str, *rows: tuple[Any, ...], **same: Any) -> tuple[Reported, ...]:
        """Several scores.

        Args:
            fields: names of the fields that a row holds, in its order, between blanks.
            rows: one a score.
            same: the fields that all of them share.
        """
        names = fields.split()
        return tuple(cls(**dict(zip(names, row, strict=True)), **same) for row in rows)


class Proof(NamedTuple):
    """What an array of a parity fixture is computed from, in float64.

    ``head`` holds the fixture's weights, ``features`` are the maps that it is given, ``graph`` is
    P(j | i) [C, C] (empty where the fixture has none), ``fixture`` its fields as they stand there.
    """

    head: Any
    features: tuple[Tensor, ...]
    graph: Tensor
    fixture: Mapping[str, Any]


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Released:
    """How the files that a method's authors published become ours; what a Recipe knows of them.

    A state is a mapping of the authors' names, without the prefix ``module.``, to tensors.

    Attributes:
        title: who released them, with what.
        marks: regular expressions; each is found in some name of such a file and of no other's.
        trunk: state -> the state dict of the backbone.
        head: state -> the parameters and buffers of the head that the file holds.
        options: state -> options of the head that shapes tell (number of heads, of groups).
        settings: what differs from the recipe's settings.
        unused: regular expressions of names that the authors' own code never uses.
        label_axes: name of a head's tensor -> its axes that run over labels; the first names a
            tensor whose size there is the number of labels.
        rearrange: (state of the head, the new order of its labels) -> state, for tensors that
            ``label_axes`` cannot describe.
        order: in which order the labels stand: ``official`` is the data set's own (COCO's ids),
            ``alphabetical`` sorts the names.
        needs: ``graph`` and ``words`` -> the head's buffers that are made of them; they are asked
            for where the file lacks these.
        graph: (P(j | i) [C, C] as the authors have it, the head's options) -> the head's buffers
            that are made of it.
        handed_over: options with which the head takes the maps that parity fixtures of heads hold.
        fixture_options: fields of a fixture -> options of the head, beyond those of equal names.
        variants: name of a fixture's array -> options with which the head gives it.
        outputs: name of a fixture's array -> how to compute it; ``logits`` need not stand here.
    """

    title: str
    marks: tuple[str, ...]
    trunk: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    head: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]] = _nothing
    settings: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    label_axes: Mapping[str, tuple[int, ...]]
    rearrange: Callable[[dict[str, Tensor], Sequence[int]], dict[str, Tensor]] | None = None
    order: Literal["official", "alphabetical"] = "official"
    needs: Mapping[Literal["graph", "words"], tuple[str, ...]] = field(default_factory=dict)
    graph: Callable[[Tensor, Mapping[str, Any]], dict[str, Tensor]] | None = None
    handed_over: Mapping[str, Any] = field(default_factory=dict)
    fixture_options: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Callable[[Proof], Tensor]] = field(default_factory=dict)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)


class Recipe(Value):
    """How a method's authors train it, and what a reader should know.

    Attributes:
        title, bibtex: the paper.
        summary: what is new in it, in a sentence or two.
        settings: the paper's own training, as the published track runs it.
        per_dataset: data set, or a family of them (see ``DatasetCard``) -> settings that differ.
        dataset_options: data set or family -> options of it that the authors chose (which images
            count, what becomes of difficult labels); the published track takes them.
        tuned: track -> settings found for this method under an equal budget; only the learning
            rate, the weight decay and options of the head (see benchmarks/README.md).
        reported: scores of the literature.
        deviations: where this implementation differs from the authors' code, in plain words.
        released: how the files that the authors published become ours; no part of any dump.
    """

    title: str
    bibtex: str
    summary: str
    settings: Settings
    per_dataset: dict[str, dict[str, Any]] = {}
    dataset_options: dict[str, dict[str, Any]] = {}
    tuned: dict[Track, dict[str, Any]] = {}
    reported: tuple[Reported, ...] = ()
    deviations: tuple[str, ...] = ()
    released: tuple[Released, ...] = Field((), exclude=True, repr=False)
