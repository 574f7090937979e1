"""mlbench from Python: ``mlbench.load``, ``mlbench.run`` and ``mlbench.results``.

Import the names from ``mlbench``; torch and pandas are imported when one of them is first used.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench.build import open_model
from mlbench.cli.console import device_name, thread_count
from mlbench.cli.matrix import execute, variants_of
from mlbench.cli.planning import Prepared, plan_safely, plan_suite, usual_precision
from mlbench.cli.progress import Lines
from mlbench.numbers import outdated
from mlbench.store import Store
from mlbench.suite import Suite, make_suite
from mlbench.text import shorten
from mlbench.trained_model import Labelled, TrainedModel
from mlbench.types import Plan, RunRecord, SuiteError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Labelled", "TrainedModel", "load", "results_table", "run"]


def load(source: str | PathLike[str], *, device: str = "auto") -> TrainedModel:
    """Open a trained model.

    Args:
        source: the folder of a run (``results/runs/ID``), a checkpoint, or an exported model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        WeightsError: the file is missing, damaged, or not a model.
        SuiteError: this machine has no such device.
    """
    return TrainedModel(open_model(Path(source)), device_name(device), thread_count())


def run(
    plugins: Sequence[str] = (),
    datasets: Sequence[str] = ("synthetic",),
    *,
    results: str | PathLike[str] = "results",
    **fields: Any,
) -> pd.DataFrame:
    """Train and score every missing run of a matrix, as ``mlbench run`` does.

    Args:
        plugins: methods, losses and backbones; every combination runs.
        datasets: data sets.
        results: folder of the results.
        fields: any other field of a suite file, such as ``seeds=[0, 1]``, ``track="probe"`` or
            ``settings={"epochs": 3}``.

    Returns:
        The runs of the matrix, in the columns of ``mlbench.results``.

    Raises:
        SuiteError: a field is wrong, every combination is refused, or a run failed.
        MlbenchError: data or weights are missing or damaged.
    """
    given = {"plugins": plugins, "datasets": datasets, "results": Path(results)}
    suite = make_suite(usual_precision(fields) | given | fields, "mlbench.run")
    call = ", ".join([repr(plugins), repr(datasets), *(f"{k}={v!r}" for k, v in fields.items())])
    planned = carry_out(suite, f"python: mlbench.run({call})")
    table = results_table(suite.results)
    wanted = table["run_id"].isin({spec.run_id for spec in planned.specs})
    return table[wanted].reset_index(drop=True)


def carry_out(suite: Suite, command: str) -> Plan:
    """Execute the missing runs of a suite, each in its own process, and return the plan.

    Afterwards, every run that was not refused has a record, which names the command.

    Raises:
        SuiteError: every combination is refused, or a run failed.
        MlbenchError: data or weights are missing or damaged.
    """
    prepared = plan_safely(plan_suite, suite, stall=suite.stall)
    execute_missing(prepared, command)
    return prepared.plan


def execute_missing(prepared: Prepared, command: str) -> None:
    """Execute the missing runs of a plan; the arguments and errors are those of ``carry_out``."""
    planned = prepared.plan
    if planned.all_refused:
        reasons = [f"{one.label}: {one.reason}" for one in planned.refused]
        raise SuiteError(shorten(reasons, 5, "\n"))
    outcomes = execute(prepared, Lines(variants_of(planned)), command)
    if failed := [f"{o.spec.title}: {o.error}" for o in outcomes if o.record is None]:
        raise SuiteError(shorten([*failed, "finished runs are kept"], 5, "\n"))


def results_table(folder: str | PathLike[str] = "results") -> pd.DataFrame:
    """The records of a store as a table, a row a run.

    Args:
        folder: the folder that was given to ``mlbench run`` as ``--results``.

    Returns:
        Columns ``run_id``, ``method``, ``head``, ``backbone``, ``loss``, ``data`` (edition),
        ``track``, ``tier``, ``seed``, ``status`` (``ok`` or ``diverged``), ``current`` (whether
        the installed code would make the same numbers; compare no others); the scores of
        ``mlbench.types.Scores`` in percent (``mAP``, ``mAP_low``, ``CF1``, ...); ``gmacs`` (1e9
        multiply-accumulates an image), ``gmacs_head``, ``parameters`` (millions),
        ``image_size`` (pixels), ``epochs``, ``batch_size``, ``lr``, ``precision``, ``seconds``
        (of the whole run), ``started`` (UTC), ``commit``, ``command``, ``checkpoint``.
        A value that a run does not have is missing (NaN or None). A record that is damaged or
        does not match its predictions is left out with a warning.

    Raises:
        SuiteError: the folder does not exist.
    """
    import pandas as pd

    if not Path(folder).is_dir():
        raise SuiteError(f"{folder} is not a folder; give the folder that `mlbench run` wrote to")
    store = Store(Path(folder))
    records, problems = store.read_all()
    matching, others = store.influences(records)
    for problem in [*problems, *others]:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return pd.DataFrame([_flat(record) for record in records if record.run_id in matching])


def _flat(record: RunRecord) -> dict[str, Any]:
    spec, settings, cost = record.spec, record.spec.settings, record.efficiency
    row: dict[str, Any] = {
        "run_id": record.run_id,
        "method": spec.method,
        "head": settings.head,
        "backbone": settings.backbone,
        "loss": settings.loss,
        "data": record.identity,
        "track": spec.track,
        "tier": record.tier,
        "seed": spec.seed,
        "status": record.status,
        "current": not outdated(record.numbers),
    }
    row |= record.scores.model_dump() if record.scores else {}
    if cost is not None:
        row["gmacs"] = cost.gmacs_backbone + cost.gmacs_head
        row["gmacs_head"] = cost.gmacs_head
        row["parameters"] = (cost.parameters_backbone + cost.parameters_head) / 1e6
    return row | {
        "image_size": settings.image_size,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "lr": settings.optimizer.lr,
        "precision": spec.precision,
        "seconds": sum(record.seconds.values()) or None,
        "started": record.began,
        "commit": record.commit,
        "command": record.command,
        "checkpoint": record.checkpoint,
    }
