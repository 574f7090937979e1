"""``mlbench pack RUN``: one run of a store as a file to submit."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from mlbench.cli.console import console, writing
from mlbench.types import PackError


def pack(
    run: Annotated[str, typer.Argument(help="A run id, or its first digits.")],
    results: Annotated[Path, typer.Option(help="The store that holds the run.")] = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option(help="The .zip to write. Default: METHOD-EDITION-RUN.zip in this folder."),
    ] = None,
) -> None:
    """Pack a run's record, predictions and settings into one small file, to submit it.

    The same run gives the same file. mlbench verify shows what others will see in it.
    """
    from mlbench.files import atomic_write, cut_name, safe_name
    from mlbench.store import Store
    from mlbench_tools.submit.pack_file import make, renewed

    if out is not None and out.suffix.lower() != ".zip":
        raise PackError(f"--out {out}: a pack is a zip; use the name {out.stem or run}.zip")
    store = Store(results)
    if (record := store.find(run)) is None:
        raise PackError(
            f"{results} has no run {run!r}; boards and the names of records have the ids, "
            "--results names another store"
        )
    predictions = store.predictions(record) if record.status == "ok" else None
    data = make(renewed(record), predictions)
    name = cut_name(safe_name(f"{record.spec.method}-{record.identity}-{record.run_id}"))
    file = out or Path(f"{name}.zip")
    with writing(file, "; choose another place with --out"):
        if file.exists() and file.read_bytes() != data:
            raise PackError(f"{file} exists and is another file; choose a name with --out")
        with atomic_write(file) as part:
            part.write_bytes(data)
    size = f"{len(data) / 2**10:,.0f} KiB"
    text = f"{file}: run {record.run_id}, {size}; next: mlbench verify {quote(str(file))}"
    console.print(text, highlight=False, soft_wrap=True)
