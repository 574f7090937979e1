"""What of a matrix is missing, what is there, and what cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from mlbench.boards.variants import variants
from mlbench.build import as_it_uses, refusal
from mlbench.cli.console import console, errors
from mlbench.cli.progress import title
from mlbench.data.open import open_data
from mlbench.store import Store
from mlbench.suite import Refused, Suite, expand
from mlbench.types import Places, RunSpec, Splits, Value


class Plan(Value):
    """What is to run, what is there already, and what cannot be."""

    missing: tuple[RunSpec, ...]
    done: tuple[RunSpec, ...]
    diverged: tuple[tuple[RunSpec, str], ...]
    refused: tuple[Refused, ...]
    why: str = "no record"

    @property
    def variants(self) -> dict[str, str]:
        """Run id -> what sets the run apart from others of its method, backbone and loss."""
        specs = [*self.missing, *self.done, *(spec for spec, _ in self.diverged)]
        return {s.run_id: text for s, text in zip(specs, variants(specs), strict=True)}

    @property
    def hopeless(self) -> bool:
        """Nothing of the matrix can be run."""
        return bool(self.refused) and not (self.missing or self.done or self.diverged)

    def show(self) -> None:
        """Print what would run, and why."""
        table = Table(box=None, pad_edge=False)
        for column in ("run", "what", "track", "state"):
            table.add_column(column, overflow="fold")
        states = [(spec, f"would run: {self.why}") for spec in self.missing]
        states += [(spec, "done") for spec in self.done]
        states += [(spec, "diverged before") for spec, _ in self.diverged]
        apart = self.variants
        for spec, state in states:
            what = f"{title(spec)} {apart[spec.run_id]}".strip()
            table.add_row(spec.run_id, escape(what), spec.track, state)
        if table.rows:
            console.print(table)
        self.complain()

    def complain(self) -> None:
        """Print what cannot be run, and why."""
        for refused in self.refused:
            errors.print(f"refused: {refused.label}: {refused.reason}", style="red", markup=False)
        for spec, error in self.diverged:
            text = f"diverged before: {spec.run_id}: {error} (--retry-diverged runs it again)"
            errors.print(text, style="red", markup=False)


def make_plan(suite: Suite, places: Places, weights: str | None, retry_diverged: bool) -> Plan:
    """Settle the runs of a matrix, and hold them against the store.

    Args:
        suite: the matrix.
        places: where data and results are.
        weights: identity of the backbone's weights, None if not given.
        retry_diverged: whether what diverged is to run again.
    """
    opened: dict[str, Splits] = {}

    def opener(
        name: str, options: Mapping[str, Any], labels: tuple[str, ...] | None, holdout: float
    ) -> Splits:
        edition = f"{name} {sorted(options.items())}"
        if edition not in opened:
            opened[edition] = open_data(
                name,
                options,
                places,
                labels=labels,
                holdout=holdout,
                allow_missing=suite.allow_missing,
                label_noise=suite.label_noise,
            )
        return opened[edition]

    def splits_of(spec: RunSpec) -> Splits:
        return opener(spec.dataset, spec.dataset_options, spec.labels, spec.holdout)

    specs, refused = expand(suite, opener, weights)
    words = next((name for name in suite.words if name != "random"), "cooccurrence")
    used = [as_it_uses(spec, splits_of(spec), places, words) for spec in specs]
    specs = list({spec.run_id: spec for spec in used}.values())
    return hold(specs, refused, splits_of, places, retry_diverged)


def hold(
    specs: Sequence[RunSpec],
    refused: Sequence[Refused],
    splits_of: Callable[[RunSpec], Splits],
    places: Places,
    retry_diverged: bool,
) -> Plan:
    """Hold settled runs against the store; what is missing is made without memory.

    Args:
        specs: the runs, each once.
        refused: what could not be settled.
        splits_of: opens the data set of a run.
        places: where data and results are.
        retry_diverged: whether what diverged is to run again.
    """
    refused, store = list(refused), Store(places.results)
    missing, done, diverged = [], [], []
    reasons: dict[str, str | None] = {}

    def reason_against(spec: RunSpec) -> str | None:
        case = _case(spec)
        if case not in reasons:
            reasons[case] = refusal(spec, splits_of(spec), places)
        return reasons[case]

    for spec in specs:
        record = store.get(spec.run_id)
        if record is not None and record.status == "ok":
            done.append(spec)
        elif record is not None and not retry_diverged:
            diverged.append((spec, record.error or "diverged"))
        elif (reason := reason_against(spec)) is None:
            missing.append(spec)
        else:
            refused.append(Refused(label=title(spec), reason=reason))
    return Plan(
        missing=tuple(missing),
        done=tuple(done),
        diverged=tuple(diverged),
        refused=tuple(refused),
        why="no record, or one that diverged" if retry_diverged else "no record",
    )


def _case(spec: RunSpec) -> str:
    """What a refusal depends on: of the seed only where it draws the label graph or the words."""
    drawn = "random" in (spec.graph, spec.words)
    return spec.run_id if drawn else spec.model_copy(update={"seed": 0}).run_id
