"""``mlbench tune``: try the same rates for every method on images held out of train."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlbench.cli.console import Data, console, errors, plain_table
from mlbench.text import command_line, count, named_values
from mlbench.types import Track

if TYPE_CHECKING:
    from mlbench.suite import Suite
    from mlbench.types import RunRecord
    from mlbench_tools.tuning.trials import Trial

EXAMPLES = """
Examples:

  mlbench tune --plugins gap,ssgrl,msrn --datasets coco --data coco --track probe

  mlbench run --suite tuned.yaml --seeds 0,1,2

  mlbench tune --plugins gap --trials 5 --grid optimizer.weight_decay=1e-4,1e-2 --set epochs=10
"""


def tune(
    plugins: Annotated[
        str | None, typer.Option(help="Plugins, separated by commas; each method is tuned.")
    ] = None,
    datasets: Annotated[str | None, typer.Option(help="The data set. Default: synthetic.")] = None,
    backbones: Annotated[str | None, typer.Option(help="Default: set by the track.")] = None,
    track: Annotated[Track | None, typer.Option(help="controlled (the default) or probe.")] = None,
    trials: Annotated[
        int, typer.Option(min=2, help="Learning rates, a factor of about 3 apart.")
    ] = 3,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=V1,V2",
            help="Values of another setting, or of optimizer.lr. May be repeated.",
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(help="Share of train that is scored instead of trained on. Default: 0.2."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds of each trial, separated by commas. Default: 0.")
    ] = None,
    suite: Annotated[Path | None, typer.Option(help="A suite file with more options.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any field of a suite file."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Training epochs.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side length in pixels.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of the backbone: default, none, or a file.")
    ] = None,
    words: Annotated[str | None, typer.Option(help="Label vectors, as for `mlbench run`.")] = None,
    data: Data = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder of the results. Default: results.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    out: Annotated[Path, typer.Option(help="The suite file to write.")] = Path("tuned.yaml"),
) -> None:
    """Try the same settings for every method on held-out images; write a suite of the best."""
    from mlbench.api import carry_out
    from mlbench.cli.matrix import print_refusals
    from mlbench.cli.planning import read_matrix
    from mlbench.store import Store
    from mlbench_tools.tuning.trials import add_rates, collect, winners, write_suite

    named: dict[str, Any] = {"plugins": plugins, "datasets": datasets, "backbones": backbones}
    named |= {"weights": weights, "words": words, "data": data, "results": results}
    named |= {"track": track, "device": device, "seeds": seeds, "holdout": holdout}
    named["grid"] = named_values(grid or (), "--grid") or None
    given = {"epochs": epochs, "image_size": image_size}
    named["settings"] = {name: value for name, value in given.items() if value} or None
    flags = {name: value for name, value in named.items() if value is not None}
    asked = read_matrix(flags, set_ or (), suite, {"seeds": 0, "holdout": 0.2})
    tried = add_rates(asked, trials)
    command = command_line()
    planned = carry_out(tried, command)
    print_refusals(planned)
    store = Store(asked.results)
    records = [record for spec in planned.specs if (record := store.find(spec.run_id))]
    found = collect(records, tuple(tried.grid))
    _show(found, tuple(tried.grid), tried, records[0], len(planned.refused))
    best = winners(found)
    if missing := [method for method in asked.methods if method not in best]:
        errors.print(f"without a winner: {', '.join(missing)}", style="red")
    if not best:
        raise typer.Exit(1)
    write_suite(out, asked, best, command)
    text = f"written to {out}; next: mlbench run --suite {shlex.quote(str(out))} --seeds 0,1,2"
    errors.print(text)
    raise typer.Exit(1 if missing or planned.refused else 0)


def _cell(value: Any, tried: Iterable[Any]) -> str:
    """A trial's value as text; of a mapping, only the parts that the grid gives."""
    if isinstance(value, Mapping):
        given = {key for one in tried if isinstance(one, Mapping) for key in one}
        return ", ".join(f"{key}: {part}" for key, part in value.items() if key in given)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _show(
    found: Sequence[Trial], names: Sequence[str], tried: Suite, example: RunRecord, refused: int
) -> None:
    table = plain_table(("method", *names, "mAP", ""), right=(*names, "mAP"))
    last = ""
    for trial in found:
        score = "diverged" if trial.mAP is None else f"{trial.mAP:.2f} {trial.interval}"
        cells = map(_cell, trial.settings.values(), tried.grid.values())
        table.add_row("" if trial.method == last else trial.method, *cells, score, trial.remark)
        last = trial.method
    console.print(table)
    seeds = "" if len(tried.seeds) == 1 else f", means over {count(len(tried.seeds), 'seed')}"
    less = " but for those that were refused" if refused else ""
    console.print(
        f"mAP in percent with its 95 % interval on {count(example.test_images, 'validation image')}"
        f" held out of train ({example.identity}){seeds}; every method had the same trials"
        f"{less}. The best of several trials is a little too good: score it on other images.",
        highlight=False,
    )
