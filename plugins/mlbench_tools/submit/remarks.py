"""What a verifier has to say about a pack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from mlbench.types import Value

Kind = Literal["finding", "warning", "not checked"]
Verdict = Literal["clean", "warnings", "findings"]
SHOWN = 5
"""How many of many names a remark lists."""
LONGEST = 400
"""Characters of what was expected or found."""


class Remark(Value):
    """Something that was seen.

    Attributes:
        kind: a ``finding`` speaks against the pack, a ``warning`` is for a person to judge, and
            ``not checked`` says what could not be looked at, and why.
        check: which check saw it.
        text: what it is.
        expected, found: of a finding: what should be there, and what is.
    """

    kind: Kind
    check: str = ""
    text: str
    expected: str = ""
    found: str = ""


class Report(Value):
    """Everything that was seen in a pack.

    Attributes:
        pack: the file.
        checks: names of the checks that were made.
        added: what became of it, where it was to be added to a store and nothing spoke against it.
    """

    pack: str
    run_id: str
    identity: str
    checks: tuple[str, ...]
    remarks: tuple[Remark, ...]
    added: str | None = None

    def also(self, check: str, remarks: Iterable[Remark]) -> Report:
        """This report after one more check."""
        named = tuple(remark.model_copy(update={"check": check}) for remark in remarks)
        update = {"checks": (*self.checks, check), "remarks": (*self.remarks, *named)}
        return self.model_copy(update=update)

    def of(self, kind: Kind) -> tuple[Remark, ...]:
        """The remarks of a kind."""
        return tuple(remark for remark in self.remarks if remark.kind == kind)

    @property
    def verdict(self) -> Verdict:
        """What a person is told first; ``clean`` is a pack that nobody need look at."""
        if self.of("finding"):
            return "findings"
        return "warnings" if self.of("warning") else "clean"


def finding(text: str, expected: object, found: object) -> Remark:
    """Something that speaks against the pack."""
    return Remark(kind="finding", text=text, expected=_cut(expected), found=_cut(found))


def warning(text: str) -> Remark:
    """Something for a person to judge."""
    return Remark(kind="warning", text=text)


def not_checked(text: str) -> Remark:
    """Something that could not be looked at."""
    return Remark(kind="not checked", text=text)


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def few(names: Sequence[object]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(str(name) for name in names[:SHOWN]) + more


def softened(remark: Remark) -> Remark:
    """A finding by plugins of another version than the run's, as a warning."""
    if remark.kind != "finding":
        return remark
    return warning(
        f"{remark.text} in the version that is installed here, which is not the run's: "
        f"{remark.expected} here, {remark.found} there"
    )
