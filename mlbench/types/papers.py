"""How the authors of a method train it, and how to read the files that they released."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field
from pydantic_core import CoreSchema, core_schema

from mlbench.types.literals import Track
from mlbench.types.settings import Settings
from mlbench.types.values import Value

if TYPE_CHECKING:
    from torch import Tensor


class Reported(Value):
    """A score of the literature, its source, and how well it is verified."""

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
            fields: names of the fields in each row, separated by spaces.
            rows: one per score.
            same: fields that all scores share.
        """
        names = fields.split()
        return tuple(cls(**dict(zip(names, row, strict=True)), **same) for row in rows)


class Proof(NamedTuple):
    """The inputs from which an array of a parity fixture is recomputed, in float64.

    Attributes:
        head: with the fixture's weights.
        features: the maps that the head is given.
        graph: P(j | i) [C, C]; empty if the fixture has none.
        fixture: all fields of the fixture.
    """

    head: Any
    features: tuple[Tensor, ...]
    graph: Tensor
    fixture: Mapping[str, Any]


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Released:
    """How to convert the files that the authors of a method released.

    A state is a mapping of the authors' names, without the prefix ``module.``, to tensors.

    Attributes:
        title: who released what.
        marks: regular expressions; each matches some name in these files and in no others.
        trunk: state -> the state dict of the backbone.
        head: state -> those parameters and buffers of the head that the file holds.
        options: state -> options of the head, read off shapes (number of heads, of groups).
        settings: what differs from the recipe's settings.
        unused: regular expressions of names that the authors' code never uses.
        label_axes: name of a tensor of the head -> its axes that run over labels. The size of the
            first tensor along its axis is the number of labels.
        rearrange: (state of the head, new order of its labels) -> state, for tensors that
            ``label_axes`` cannot describe.
        order: the order of the labels: ``official`` is the data set's own (COCO's ids),
            ``alphabetical`` sorts the names.
        needs: ``graph`` and ``words`` -> the buffers of the head computed from them; required
            from the user if the file lacks these buffers.
        graph: (P(j | i) [C, C] as the authors have it, options of the head) -> the buffers
            computed from it.
        handed_over: options with which the head accepts the maps in parity fixtures of heads.
        fixture_options: fields of a fixture -> options of the head, besides those of equal names.
        variants: name of an array in a fixture -> options with which the head outputs it.
        outputs: name of an array in a fixture -> how to compute it; ``logits`` is implied.
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
    """How the authors of a method train it, and what a reader should know.

    Attributes:
        title, bibtex: of the paper.
        summary: what is new, in a sentence or two.
        settings: the paper's own training, which the published track runs.
        per_dataset: data set or family (see ``DatasetCard``) -> settings that differ.
        dataset_options: data set or family -> its options in the paper (which images count, how
            difficult labels are treated), for the published track.
        tuned: track -> settings found for this method under an equal budget: the learning rate,
            the weight decay and options of the head (see benchmarks/README.md).
        reported: scores of the literature.
        deviations: in plain words, where this implementation differs from the authors' code.
        released: how to convert the files that the authors released; excluded from dumps.
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
