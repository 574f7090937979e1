"""Checks of the record alone: what it says must be possible and agree with itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from mlbench import recipe
from mlbench.types import SuiteError
from mlbench_tools.submit.archive import PREDICTIONS, RECIPE, RECORD
from mlbench_tools.submit.case import Case
from mlbench_tools.submit.fields import differing
from mlbench_tools.submit.remarks import Remark, finding, warning

CLOCKS_DIFFER = timedelta(days=1)
"""By this much at most: zones that are set wrong, too."""
EARLIEST = datetime(2024, 1, 1, tzinfo=UTC)
"""No run of mlbench can have begun before."""
_MAKES = re.compile(
    r"(torchrun (.* )?-m )?mlbench (?P<verb>run|evaluate|rescore)(?P<rest>( .*)?)", re.S
)
"""The commands that leave records."""


def members(case: Case) -> Iterator[Remark]:
    """Every member has the hash that the manifest says, and none is missing."""
    said, found = case.pack.manifest.sha256, case.pack.sha256
    needed = {RECORD, RECIPE} | ({PREDICTIONS} if case.record.status == "ok" else set())
    for name in sorted(needed | set(said) | set(found)):
        if said.get(name) != found.get(name):
            yield finding(
                f"{name} is not what the manifest says",
                f"sha256 {said[name][:16]}" if name in said else "no such member",
                f"sha256 {found[name][:16]}" if name in found else "no such member",
            )
        elif name not in found:
            yield finding(f"{name} is missing", "a member of this name", "none")


def run_id(case: Case) -> Iterator[Remark]:
    """The run id is the hash of the spec, everywhere."""
    expected = case.spec.run_id
    if case.record.run_id != expected:
        yield finding(
            "the run id is not the hash of the settings: these or it were changed",
            expected,
            case.record.run_id,
        )
    if case.pack.manifest.run_id != case.record.run_id:
        yield finding(
            "the manifest is of another run than the record",
            case.record.run_id,
            case.pack.manifest.run_id,
        )
    predicted = case.pack.predicted
    if predicted is not None and predicted.run_id != case.record.run_id:
        yield finding(
            "the predictions are of another run than the record",
            case.record.run_id,
            predicted.run_id,
        )


def settings(case: Case) -> Iterator[Remark]:
    """What a person reads is what was run, to the last comment."""
    described = case.pack.recipe
    if described is None:
        return
    try:
        told = recipe.read(described)
    except SuiteError as error:
        yield finding(f"{RECIPE} cannot be read", "the run's settings", error)
        return
    differences = differing(recipe.of(case.record), told)
    for path, (ran, said) in sorted(differences.items()):
        name = path.removeprefix("spec.")
        yield finding(f"{RECIPE} and the record differ in {name}", repr(ran), repr(said))
    expected = recipe.text(case.record)
    if described != expected and not differences:
        lines = zip_longest(expected.splitlines(), described.splitlines())
        number, pair = next((n, both) for n, both in enumerate(lines, 1) if both[0] != both[1])
        yield finding(f"line {number} of {RECIPE} is not what the record gives", *map(repr, pair))


def status(case: Case) -> Iterator[Remark]:
    """A run that is ok has all that such a run has; one that diverged has no score."""
    record = case.record
    ok = record.status == "ok"
    parts = {
        "scores": record.scores is not None,
        "average precisions": bool(record.average_precision),
        "efficiency": record.efficiency is not None,
        "predictions": case.pack.predicted is not None,
    }
    for part, there in parts.items():
        if there != ok:
            yield finding(
                f"a run whose status is {record.status} has {part if there else f'no {part}'}",
                part if ok else f"no {part}",
                part if there else f"no {part}",
            )
    if ok and record.error is not None:
        yield finding("a run whose status is ok has an error", "none", record.error)
    if not ok:
        yield warning("the run diverged: there is no score to recompute, nor any cost")


def started(case: Case) -> Iterator[Remark]:
    """The time at which a run began has a zone, and has been: the order of the store's history."""
    said = case.record.started
    began = datetime.fromisoformat(said)
    if began.tzinfo is None:
        text = "the time at which the run began has no zone"
        yield finding(text, "as 2026-01-31T12:00:00+00:00", said)
        return
    now = datetime.now(UTC)
    if began - now > CLOCKS_DIFFER:
        text = "the run began in the future"
        yield finding(text, f"until {now.isoformat(timespec='seconds')}", said)
    elif began < EARLIEST:
        yield warning(f"the run began at {said}, before there was an mlbench: is the clock wrong?")


def command(case: Case) -> Iterator[Remark]:
    """The command is one that makes such a record, and nothing that a shell would do more with."""
    said, method = case.record.command, case.spec.method
    expected = "mlbench run or rescore, with each word quoted as a shell needs it"
    try:
        words = shlex.split(said)
    except ValueError as error:
        yield finding("the command cannot be read", expected, f"{said} ({error})")
        return
    made = _MAKES.fullmatch(said)
    if made is None or shlex.join(words) != said:
        yield finding("the command is none that makes a record", expected, said or "nothing")
        return
    named = _named(shlex.split(made["rest"])) if made["verb"] == "run" else None
    if named is not None and method not in named:
        yield finding("the command is of other methods", f"one that names {method}", said)


def _named(flags: Sequence[str]) -> set[str] | None:
    """The plugins that ``mlbench run`` was given; None where a file names them."""
    parts = [flag.partition("=") for flag in flags]
    if {"--suite", "--repeat"} & {flag for flag, _, _ in parts}:
        return None
    found = [
        value if equals else after
        for (flag, equals, value), after in zip(parts, [*flags[1:], ""], strict=True)
        if flag == "--plugins"
    ]
    return {name.strip() for names in found for name in names.split(",")}


def commit(case: Case) -> Iterator[Remark]:
    """Whoever wants to repeat a run needs its code."""
    found = case.record.commit
    if found is None:
        yield warning("the record names no commit: what code ran is not to be seen")
    elif found.endswith("-dirty"):
        yield warning(f"the code differed from its commit ({found}), so nobody else has it")
    elif not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", found):
        yield warning(f"the commit {found!r} is no commit of git in full")
    elif not found.strip("0"):
        yield warning(f"the commit {found} is git's sign for none")
