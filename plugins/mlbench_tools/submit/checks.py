"""Judge a pack: every check, and everything that each has to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mlbench_tools.submit import claims, costs, split, training
from mlbench_tools.submit.archive import Pack
from mlbench_tools.submit.case import Case, case
from mlbench_tools.submit.counts import counts
from mlbench_tools.submit.influence import influence
from mlbench_tools.submit.positives import train_positives
from mlbench_tools.submit.remarks import Remark, Report
from mlbench_tools.submit.scores import scores, selection

Check = Callable[[Case], Iterator[Remark]]

CHECKS: dict[str, Check] = {
    "members": claims.members,
    "run id": claims.run_id,
    "settings": claims.settings,
    "status": claims.status,
    "started": claims.started,
    "command": claims.command,
    "method": training.method,
    "track": training.track,
    "epochs": training.epochs,
    "schedule": training.schedule,
    "labels": split.labels,
    "predictions": split.predictions,
    "edition": split.identity,
    "card": split.card,
    "data": split.data,
    "training positives": train_positives,
    "scores": scores,
    "selection": selection,
    "influence": influence,
    "efficiency": costs.efficiency,
    "counts": counts,
    "plugins": costs.plugins,
    "commit": claims.commit,
}
"""Name -> check; none relies on another having passed."""


def verify(pack: Pack, data: Path | None = None, cache: Path | None = None) -> Report:
    """Everything that can be said of a pack without trusting it.

    Args:
        pack: as ``mlbench_tools.submit.archive.read`` gives it.
        data: the folder of the data sets, to compare every key and target with; None goes by what
            the data set's card knows.
        cache: a folder to write to, needed with ``data``.

    Raises:
        DataError: ``data`` was given, and the data set is not there.
    """
    known = case(pack, data, cache)
    report = Report(
        pack=pack.name,
        run_id=pack.record.run_id,
        identity=pack.record.identity,
        checks=(),
        remarks=(),
    )
    for name, check in CHECKS.items():
        if data is not None or name != "data":
            report = report.also(name, check(known))
    return report
