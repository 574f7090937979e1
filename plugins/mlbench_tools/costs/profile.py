"""``mlbench profile``: what heads cost apart from their backbone, by the number of labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mlbench.cli.console import console
from mlbench.types import Precision, Recipe, Settings, SuiteError

if TYPE_CHECKING:
    from mlbench.suite import Suite
    from mlbench_tools.costs.profiling import BackboneProfile, Part, Profile


def profile(
    plugins: Annotated[
        str | None, typer.Option(help="Methods, and backbones, with commas.")
    ] = None,
    classes: Annotated[str, typer.Option(help="Numbers of labels, with commas.")] = "20,80,500",
    backbones: Annotated[
        str | None, typer.Option(help="Backbones, with commas. Default: resnet101.")
    ] = None,
    image_size: Annotated[int, typer.Option(min=1, help="Side in pixels.")] = 448,
    measure: Annotated[
        bool, typer.Option("--measure", help="Take latency and peak memory, too.")
    ] = False,
    batch_sizes: Annotated[str, typer.Option(help="With --measure.")] = "1,16",
    device: Annotated[
        str, typer.Option(help="With --measure: auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto",
    precision: Annotated[Precision, typer.Option(help="With --measure.")] = "fp32",
    cards: Annotated[
        bool, typer.Option("--cards", help="Print a Markdown table of all methods' cards.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count heads apart from their backbone, with the options of their recipes.

    Needs no weights and no data, and without --measure hardly any time or memory.
    """
    if cards:
        from mlbench_tools.costs.head_costs import method_table

        typer.echo(method_table(), nl=False)
        return
    if plugins is None:
        raise SuiteError("no method to profile; name some, as in --plugins ssgrl,gap")
    labels, sizes = _numbers("--classes", classes), _numbers("--batch-sizes", batch_sizes)
    suite = _suite(plugins, backbones)

    import torch

    from mlbench.cli.device import device_name
    from mlbench_tools.costs.profiling import Measuring
    from mlbench_tools.costs.profiling import profile as count

    how = None
    if measure:
        how = Measuring(torch.device(device_name(device)), precision, tuple(sizes))
    heads = {method: _settings(method) for method in suite.methods}
    found = count(heads, suite.backbones or ("resnet101",), labels, image_size, how)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        _show(found)


def _numbers(flag: str, text: str) -> list[int]:
    """The different numbers of a flag, in its order."""
    numbers = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not part.isdecimal() or int(part) < 1:
            raise SuiteError(f"{flag} {text}: {part!r} is no number from 1, as in {flag} 20,80")
        numbers.append(int(part))
    if not numbers:
        raise SuiteError(f"{flag} names no number; give some, as in {flag} 20,80")
    return list(dict.fromkeys(numbers))


def _suite(plugins: str, backbones: str | None) -> Suite:
    from mlbench.suite import make

    fields = {"plugins": _names(plugins), "backbones": _names(backbones or "")}
    suite = make(fields, "the command line")
    if beyond := (*suite.losses, *suite.datasets):
        raise SuiteError(
            f"--plugins: {', '.join(beyond)} costs nothing at inference; name methods and backbones"
        )
    return suite


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _settings(method: str) -> Settings:
    """The recipe's settings, or the defaults of a head without one."""
    from mlbench import registry

    if "recipe" in registry.kinds_of(method):
        recipe = registry.find("recipe", method).load()
        assert isinstance(recipe, Recipe), f"recipe {method!r} is a {type(recipe).__name__}"
        return recipe.settings
    return Settings(head=method)


def _show(found: Profile) -> None:
    for one in found.backbones:
        cost = one.cost
        title = f"{one.backbone} at {found.image_size}: " + ", ".join(
            f"{cell} {unit}" for unit, cell in _costs(cost).items()
        )
        console.print(Text(title, style="bold"))
        console.print(_table(one))
        for head in one.heads:
            if head.refusal:
                _say(f"- {head.method} at {head.labels} labels: {head.refusal}")
    for fact in _facts(found):
        _say(fact)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(one: BackboneProfile) -> Table:
    # A head that could be counted but not measured has fewer units than the backbone.
    units = list(_costs(one.cost))
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for name in ("labels", *units, "of all GMACs"):
        table.add_column(name, justify="right")
    for head in one.heads:
        costs = _costs(head.cost) if head.cost else {}
        share = f"{_share(head.cost, one.cost):.1%}" if head.cost else "-"
        cells = [costs.get(unit, "-") for unit in units]
        table.add_row(Text(head.method), f"{head.labels:,}", *cells, share)
    return table


def _costs(cost: Part) -> dict[str, str]:
    """Unit -> number."""
    found = {"M parameters": f"{cost.parameters / 1e6:,.2f}", "GMACs": f"{cost.gmacs:,.3f}"}
    for time in cost.latency:
        found[f"ms at batch {time.batch_size}"] = f"{time.median_ms:,.1f}"
    if cost.peak_memory_mb is not None:
        found["MiB"] = f"{cost.peak_memory_mb:,.0f}"
    return found


def _share(head: Part, backbone: Part) -> float:
    return head.gmacs / (head.gmacs + backbone.gmacs)


def _facts(found: Profile) -> Iterator[str]:
    yield (
        "GMACs: 1e9 multiply-accumulates an image, from a batch of two, as in the records; heads "
        "have the options of their recipes."
    )
    if found.device is None:
        yield "Counted from shapes, on no device; --measure takes latency and memory."
        return
    threads = f", {found.threads} thread{'s' * (found.threads != 1)}"
    yield (
        f"ms: median of the part alone on {found.device}{threads}, {found.precision}. MiB: "
        "its weights and the most that a call of the largest batch holds."
    )
