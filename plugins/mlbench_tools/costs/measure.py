"""``mlbench measure``: how fast models are, in turns with their bare backbones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench import registry
from mlbench.cli.console import AsJson, Device, Results, console, device_name, errors, plain_table
from mlbench.text import count
from mlbench.types import Network, PluginError, Precision, SuiteError, Track

if TYPE_CHECKING:
    from mlbench.store import Store
    from mlbench.types import ModelCost, Speed
    from mlbench_tools.costs.measuring import Bench

EXAMPLES = """
Examples:

  mlbench measure --results results

  mlbench measure --plugins ssgrl,gap --backbones resnet101 --labels 80 --image-size 448

  mlbench measure --results results --runtime compiled --device cuda
"""


def measure(
    results: Results = Path("results"),
    plugins: Annotated[
        str | None,
        typer.Option(help="Methods and backbones. Default: the models of the store's boards."),
    ] = None,
    backbones: Annotated[
        str | None, typer.Option(help="With --plugins: backbones. Default: resnet101.")
    ] = None,
    track: Annotated[
        Track | None,
        typer.Option(help="With --plugins: whose options the heads have. Default: the papers'."),
    ] = None,
    labels: Annotated[int, typer.Option(min=1, help="With --plugins: number of labels.")] = 80,
    image_size: Annotated[
        int, typer.Option(min=1, help="With --plugins: side length of the images in pixels.")
    ] = 448,
    weights: Annotated[
        Path | None,
        typer.Option(help="With --plugins: a file whose header may change the architecture."),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Default: cuda-graph on CUDA, else eager.")
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        Precision | None, typer.Option(help="Default: bf16 on CUDA, else fp32.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="For each model and batch size, about.")
    ] = 2.0,
    again: Annotated[bool, typer.Option("--again", help="Also what was measured before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure latency and throughput of models, and keep them in results/costs/.

    Models are built with random weights and take turns with their bare backbones. On a CPU they
    compute with one thread, whose processor time counts, so other work hardly changes the result.
    """
    import torch

    from mlbench.store import Store
    from mlbench_tools.costs.measuring import Bench, default_runtime, measure_networks

    where = torch.device(device_name(device))
    chosen = runtime or default_runtime(where)
    registry.find("runtime", chosen)
    cuda = where.type == "cuda"
    if chosen == "cuda-graph" and not cuda:
        raise SuiteError(f"--runtime cuda-graph needs CUDA, and this is {where}; use eager")
    bench = Bench(where, precision or ("bf16" if cuda else "fp32"), chosen, seconds)
    store = Store(results)
    if plugins is None:
        networks = _of_boards(store)
    else:
        networks = _asked(plugins, backbones, track, labels, image_size, str(weights or "none"))
    missing = networks if again else bench.missing(networks, store.read_costs()[0])
    if missing:
        store.assert_writable()
    refused = measure_networks(missing, bench, store)
    for name, reason in refused.items():
        errors.print(f"not measured: {name}: {reason}", style="red")
    _show(networks, bench, store, as_json)
    if refused:
        raise typer.Exit(1)


def _of_boards(store: Store) -> list[Network]:
    """The models of all records; print which records do not tell how their model was built."""
    records, _ = store.read_all()
    scored = [record for record in records if record.scores is not None]
    found = {record.run_id: Network.of(record) for record in scored}
    if unclear := [run_id for run_id, network in found.items() if network is None]:
        text = f"not measured: {count(len(unclear), 'run')}: old records do not say how the "
        errors.print(f"{text}backbone was built from its weights file; train again", style="red")
    networks = {n.name: n for n in found.values() if n is not None}
    if not networks:
        raise SuiteError(
            f"no record in {store.root} has a model to measure; name models with --plugins, or "
            "another folder with --results"
        )
    return list(networks.values())


def _asked(
    plugins: str,
    backbones: str | None,
    track: Track | None,
    labels: int,
    image_size: int,
    weights: str,
) -> list[Network]:
    from mlbench_tools.costs.asked import DEFAULT_BACKBONE, describe, read_models

    heads, trunks = read_models(plugins, backbones, track)
    found = []
    for backbone in trunks or (DEFAULT_BACKBONE,):
        for method, ran in heads.items():
            place = labels, backbone, image_size, weights
            try:
                found.append(describe(ran.head, ran.head_options, *place))
            except PluginError as error:
                errors.print(f"not measured: {method}: {error}", style="red")
    return found


def _show(networks: Iterable[Network], bench: Bench, store: Store, as_json: bool) -> None:
    """Print what is known of some models at this place."""
    names = {network.name for network in networks}
    measured, problems = store.read_costs()
    for problem in problems:
        errors.print(str(problem), style="red")
    costs = [c for c in measured if c.network.name in names and bench.has_measured(c)]
    if as_json:
        typer.echo(f"[{','.join(cost.model_dump_json(indent=1) for cost in costs)}]")
        return
    if costs:
        console.print(costs[0].place)
        _print_table(costs)


def _print_table(costs: Sequence[ModelCost]) -> None:
    from mlbench.boards.markup import span
    from mlbench.types import Speeds

    speeds = Speeds(costs)
    timed = [(cost, s) for cost in costs if (s := speeds.speed(cost)) is not None]
    timed.sort(key=lambda pair: pair[1].ms)
    numbers = ("#", "labels", "size", "ms", "head ms", "/ backbone", "ms, batch 16", "images/s")
    table = plain_table(("#", "head", "backbone", *numbers[1:], "batch", ""), (*numbers, "batch"))
    places = _places([speed for _, speed in timed])
    for (cost, speed), (first, last) in zip(timed, places, strict=True):
        network, one = cost.network, cost.timings[0]
        many = "-" if speed.ms_16 is None else f"{speed.ms_16:.2f}"
        most = "-" if speed.images_per_second is None else f"{speed.images_per_second:,.0f}"
        table.add_row(
            *(span(first, last), network.head, network.backbone),
            *(str(network.labels), str(network.image_size)),
            *(f"{speed.ms:.2f}", f"{speed.head_ms:.2f}"),
            *(f"{one.ratio:.3f} [{one.ratio_low:.3f},{one.ratio_high:.3f}]", many, most),
            *(str(speed.best_batch), speed.remark),
        )
    console.print(table)


def _places(speeds: Sequence[Speed]) -> list[tuple[int, int]]:
    """For each model, the best and the worst rank that its time allows, from 1."""
    return [
        (
            1 + sum(other.high < one.low for other in speeds),
            len(speeds) - sum(one.high < other.low for other in speeds),
        )
        for one in speeds
    ]
