"""A pack, and what is known about its data set: what every check is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlbench import registry
from mlbench.data.open import open_run
from mlbench.types import (
    DatasetCard,
    Edition,
    LabelNoise,
    Places,
    PluginError,
    RunRecord,
    RunSpec,
    Splits,
)
from mlbench_tools.submit.archive import Pack


@dataclass(frozen=True)
class Case:
    """What is to be judged, and by what.

    Attributes:
        card: of the data set, None where its plugin is not installed or has none.
        names: all labels of the data set in the order of its columns, where that is known.
        splits: the data set itself, where ``--data`` was given.
    """

    pack: Pack
    card: DatasetCard | None = None
    names: tuple[str, ...] | None = None
    splits: Splits | None = None

    @property
    def record(self) -> RunRecord:
        """What the run says that it found."""
        return self.pack.record

    @property
    def spec(self) -> RunSpec:
        """What was run."""
        return self.pack.record.spec

    @property
    def plain(self) -> bool:
        """Whether the run takes the data set as it is: all labels, all images, both splits."""
        spec = self.spec
        part = spec.labels is not None or spec.holdout or spec.incomplete
        return not part and spec.label_noise == LabelNoise()

    @property
    def edition(self) -> Edition | None:
        """The known edition that the record names, whatever part of it the run took."""
        known = self.card.editions if self.card else {}
        identity = self.record.identity
        fitting = [n for n in known if identity == n or identity.startswith(f"{n}-")]
        # "voc2007-mini-3-labels" is of voc2007-mini, not of voc2007.
        return known[max(fitting, key=len)] if fitting else None


def case(pack: Pack, data: Path | None = None, cache: Path | None = None) -> Case:
    """Gather what is known.

    Args:
        pack: what was submitted.
        data: the folder of the data sets, None to go by the card alone.
        cache: a folder to write to, if ``data`` is given.

    Raises:
        DataError: the data set is not under ``data``.
    """
    spec = pack.record.spec
    try:
        factory = registry.find("dataset", spec.dataset).load()
    except PluginError:
        return Case(pack)
    found = getattr(factory, "card", None)
    card = found if isinstance(found, DatasetCard) else None
    official = card.orders.get("official") if card else None
    names = official or getattr(factory, "names", None)
    if data is None:
        return Case(pack, card, names)
    assert cache is not None, "a data set is opened with a cache"
    places = Places(data=data, cache=cache, results=cache)
    # No file is checked: the images themselves need not be there.
    splits = open_run(spec, places, check=lambda _: {})
    return Case(pack, splits.card, names, splits)
