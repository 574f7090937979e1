"""mlbench from Python: ``mlbench.load``, ``mlbench.run`` and ``mlbench.results``.

Import the names from ``mlbench``; torch and pandas are imported when one of them is first used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench.build import open_model
from mlbench.cli.console import device_name, thread_count
from mlbench.cli.matrix import execute, titles_of
from mlbench.cli.planning import Prepared, plan_safely, plan_suite, usual_precision
from mlbench.cli.progress import Lines
from mlbench.numbers import outdated
from mlbench.store import Store
from mlbench.suite import Suite, make_suite
from mlbench.suite_file import place
from mlbench.text import shorten
from mlbench.trained_model import Labelled, TrainedModel
from mlbench.types import Plan, RunRecord, Scores, SuiteError

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
        fields: any other field of a suite, or setting, such as ``seeds=[0, 1]``,
            ``track="probe"``, ``epochs=3`` or ``optimizer={"lr": 1e-3}``.

    Returns:
        The runs of the matrix, in the columns of ``mlbench.results``.

    Raises:
        PluginError: no plugin has one of the names.
        SuiteError: a field is wrong, every combination is refused, or a run failed.
        MlbenchError: data or weights are missing or damaged.
    """
    named = {"results": results, **fields}
    own = {"plugins": plugins, "datasets": datasets, **place(named, "of mlbench.run")}
    suite = make_suite(usual_precision(own) | own, "mlbench.run")
    call = ", ".join([repr(plugins), repr(datasets), *(f"{k}={v!r}" for k, v in named.items())])
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
    outcomes = execute(prepared, Lines(titles_of(planned)), command)
    if failed := [f"{o.spec.title}: {o.error}" for o in outcomes if o.record is None]:
        raise SuiteError(shorten([*failed, "finished runs are kept"], 5, "\n"))


def _score(name: str) -> Callable[[RunRecord], float | None]:
    return lambda r: getattr(r.scores, name, None)


COLUMNS: dict[str, Callable[[RunRecord], Any]] = {
    "run_id": lambda r: r.run_id,
    "method": lambda r: r.spec.method,
    "head": lambda r: r.spec.settings.head,
    "backbone": lambda r: r.spec.settings.backbone,
    "loss": lambda r: r.spec.settings.loss,
    "data": lambda r: r.identity,
    "track": lambda r: r.spec.track,
    "tier": lambda r: r.tier,
    "seed": lambda r: r.spec.seed,
    "status": lambda r: r.status,
    "current": lambda r: not outdated(r.numbers),
    **{name: _score(name) for name in Scores.model_fields},
    "gmacs": lambda r: r.efficiency and r.efficiency.gmacs_backbone + r.efficiency.gmacs_head,
    "gmacs_head": lambda r: r.efficiency and r.efficiency.gmacs_head,
    "parameters": lambda r: (
        r.efficiency and (r.efficiency.parameters_backbone + r.efficiency.parameters_head) / 1e6
    ),
    "image_size": lambda r: r.spec.settings.image_size,
    "epochs": lambda r: r.spec.settings.epochs,
    "batch_size": lambda r: r.spec.settings.batch_size,
    "lr": lambda r: r.spec.settings.optimizer.lr,
    "precision": lambda r: r.spec.precision,
    "seconds": lambda r: sum(r.seconds.values()) or None,
    "started": lambda r: r.began,
    "commit": lambda r: r.commit,
    "command": lambda r: r.command,
    "checkpoint": lambda r: r.checkpoint,
}
"""Column of ``results_table`` -> its value for a record."""


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
    kept = [record for record in records if record.run_id in matching]
    return pd.DataFrame({name: [value(one) for one in kept] for name, value in COLUMNS.items()})
