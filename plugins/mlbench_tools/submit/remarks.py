"""The result of verifying a pack: findings, warnings, and what could not be checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

RemarkKind = Literal["finding", "warning", "not checked"]
Verdict = Literal["clean", "warnings", "findings", "unfinished", "unreadable"]


class Remark(NamedTuple):
    """One result of a check.

    Attributes:
        kind: ``finding`` counts against the pack, ``warning`` is for a person to judge, and
            ``not checked`` says what could not be checked, and why.
        expected, found: the right value and the pack's, for a finding.
        check: name of the check.
    """

    kind: RemarkKind
    text: str
    expected: object = ""
    found: object = ""
    check: str = ""


def finding(text: str, expected: object, found: object) -> Remark:
    """Return a remark that counts against the pack."""
    return Remark("finding", text, expected, found)


def as_warning(remark: Remark) -> Remark:
    """Turn a finding into a warning, where something other than an error may explain it."""
    if remark.kind != "finding":
        return remark
    return Remark("warning", f"{remark.text}: {remark.expected} here, {remark.found} in the pack")


@dataclass
class VerifyReport:
    """All remarks on a file.

    Attributes:
        pack: path of the file.
        error: why the file is not a pack, or, with a run id, why the data set cannot be read or the
            store cannot be written; empty if nothing failed.
        checks: names of the checks that ran.
        added: the outcome of adding the pack to a store; None if it was not added.
    """

    pack: str
    error: str = ""
    run_id: str = ""
    identity: str = ""
    checks: list[str] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    added: str | None = None

    def extend(self, check: str, remarks: Iterable[Remark]) -> None:
        """Add one more check."""
        self.checks.append(check)
        self.remarks += [remark._replace(check=check) for remark in remarks]

    def of(self, kind: RemarkKind) -> list[Remark]:
        """Return the remarks of one kind."""
        return [remark for remark in self.remarks if remark.kind == kind]

    @property
    def verdict(self) -> Verdict:
        """``clean`` means no finding and no warning."""
        if self.error:
            return "unfinished" if self.run_id else "unreadable"
        if self.of("finding"):
            return "findings"
        return "warnings" if self.of("warning") else "clean"
