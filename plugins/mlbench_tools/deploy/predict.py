"""``mlbench predict MODEL PATH...``: label pictures."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from filecmp import cmp
from glob import iglob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress as Bars

from mlbench.cli.console import Device, console, errors, plain_table
from mlbench.files import sha256
from mlbench.text import count, shorten
from mlbench.types import DataError, SuiteError
from mlbench_tools.deploy.outputs import Choice, open_output, shown

if TYPE_CHECKING:
    from mlbench.trained_model import Labelled

EXAMPLES = """
Examples:

  mlbench predict results/runs/cc19c684 photos/

  mlbench predict model.onnx photos/ --out labels.csv --copy-to sorted/

  find photos -newer labels.csv | mlbench predict results/runs/cc19c684 --out new.jsonl --top 3
"""

EVERY = 30.0
"""Seconds between two lines of progress without a terminal."""

LONGEST = 200
"""Bytes of a folder's name; file systems take 255, and encrypted ones less."""
_REFUSED = re.compile(r"""[/\\:*?"<>|%~]|^[. ]|[. ]$""")
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)\d)(\..*)?", re.IGNORECASE)


def predict(
    model: Annotated[
        Path, typer.Argument(help="The folder of a run, a checkpoint, or an exported model.")
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, folders or globs; - is one picture on standard input. Without any, "
            "standard input is a list of files, one a line."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write to this .csv, .jsonl or .parquet. Pictures that it has are skipped."
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="The K most likely labels, whatever their scores.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="One threshold for all labels. Default: the model's."),
    ] = None,
    all_scores: Annotated[
        bool, typer.Option("--all-scores", help="Also write the scores of the other labels.")
    ] = False,
    copy_to: Annotated[
        Path | None, typer.Option(help="Copy each picture to DIR/LABEL/ for each of its labels.")
    ] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
) -> None:
    """Label pictures; those that cannot be read are listed and skipped (exit code 1)."""
    from mlbench.api import load
    from mlbench.engine.cost import keep_freed_memory

    if top is not None and threshold is not None:
        raise SuiteError("--top and --threshold exclude each other; give one of them")
    trained = load(model, device=device)
    keep_freed_memory(True)
    choice = Choice(trained.info, top, threshold, all_scores)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files, output = _find(paths, Path(folder)), None
        if out is not None:
            output = stack.enter_context(open_output(out, choice, {*map(shown, files)}))
        known = output.known if output is not None else {}
        todo = [file for file in files if shown(file) not in known]
        if len(todo) < len(files):
            have = len(files) - len(todo)
            errors.print(f"{have:,} of {count(len(files), 'picture')} are in {out}")
        table, bad, copied, none = plain_table(("picture", "labels")), [], 0, 0
        names = folder_names({*trained.labels}.union(*known.values()))
        if copy_to is not None:
            before = ((f, [names[n] for n in known.get(shown(f), ())]) for f in files)
            copied = sum(_copy(file, into, copy_to) for file, into in before)
        for result in _progress(trained.batches(todo, batch_size), len(todo)):
            if result.error:
                bad.append(shown(result.error))
            labels = choice.labels(result)
            none += not labels and not result.error
            if copy_to is not None:  # before the row, which says that a picture is done
                assert result.image is not None
                copied += _copy(result.image, [names[name] for name in labels], copy_to)
            if output is not None:
                output.write(result)
            elif not result.error:
                scored = ", ".join(f"{name} {result.scores[name]:.2f}" for name in labels)
                table.add_row("-" if folder in str(result.image) else shown(result.image), scored)
    if out is None:
        console.print(table)
    else:
        without = f"; {none:,} have no label above its threshold" if none else ""
        errors.print(f"{count(len(todo), 'picture')} written to {out}{without}")
    if copy_to is not None:
        errors.print(f"{copied:,} copied to {copy_to}")
    if bad:
        lines = shorten(bad, 20, "\n  ")
        text = f"{len(bad)} of {count(len(todo), 'picture')} cannot be read:\n  {lines}"
        errors.print(text, style="red")
        raise typer.Exit(1)


def _find(paths: Sequence[str] | None, folder: Path) -> list[Path]:
    """The files that the arguments name, without repetitions."""
    from mlbench.trained_model import find_pictures

    if not paths:
        if sys.stdin.isatty():
            raise DataError("name pictures, folders or globs, or pipe a list of files in")
        lines = os.fsdecode(sys.stdin.buffer.read()).splitlines()
        return list(dict.fromkeys(Path(line) for line in lines if line))
    found: list[Path] = []
    for path in paths:
        if path == "-":
            found.append(folder / "standard-input")
            found[-1].write_bytes(sys.stdin.buffer.read())
        elif Path(path).is_dir():
            found += find_pictures(Path(path))
        elif not Path(path).exists() and (
            matches := sorted(iglob(path, recursive=True))  # noqa: PTH207 - absolute ones, too
        ):
            found += map(Path, matches)
        else:
            found.append(Path(path))  # one that is missing is listed with those that are damaged
    return list(dict.fromkeys(found))


def _progress(batches: Iterator[list[Labelled]], total: int) -> Iterator[Labelled]:
    """Yield the results; show progress by bars on a terminal, or by a line every half minute."""
    done, last = 0, time.monotonic()
    with Bars(console=errors, transient=True, disable=not errors.is_terminal) as bars:
        task = bars.add_task("pictures", total=total)
        for batch in batches:
            yield from batch
            done += len(batch)
            bars.update(task, completed=done)
            if not errors.is_terminal and time.monotonic() - last > EVERY:
                errors.print(f"{done:,} of {count(total, 'picture')}")
                last = time.monotonic()


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Label -> a name for its folder that any file system takes and no other label has.

    Characters of all scripts stay. Those that a file system refuses or nobody sees become ``%`` and
    two hex digits a byte. ``~`` and a part of the label's digest follow where a name was too long,
    is a device of Windows, or differs from another in case or Unicode form only.
    """
    names = {}
    for label in labels:
        taken = _REFUSED.sub(lambda found: _in_hex(found[0]), label)
        names[label] = "".join(c if c.isprintable() else _in_hex(c) for c in taken) or "%"
    folded = {n: unicodedata.normalize("NFKC", name).casefold() for n, name in names.items()}
    times = Counter(folded.values())
    for label, name in names.items():
        whole = name.encode()
        if len(whole) > LONGEST or times[folded[label]] > 1 or _DEVICE.fullmatch(name):
            digest = hashlib.sha256(label.encode()).hexdigest()[:12]
            names[label] = f"{whole[: LONGEST - 13].decode(errors='ignore')}~{digest}"
    return names


def _in_hex(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _copy(image: Path, names: Sequence[str], folder: Path) -> int:
    """Copy a picture into folders of these names; return the number of new copies.

    If another picture has taken its name, a part of its digest is added to the name.
    """
    copied = 0
    for name in names:
        target = folder / name / image.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not cmp(image, target, shallow=False):
                stem, end = target.stem, f"-{sha256(image)[:12]}{target.suffix}"
                while len(os.fsencode(stem + end)) > 255:  # bytes that a name may have
                    stem = stem[:-1]
                target = target.with_name(stem + end)
            if not target.exists():
                shutil.copyfile(image, target)
                copied += 1
        except OSError as error:
            raise SuiteError(
                f"--copy-to {folder}: {shown(image)} cannot be copied to {shown(target)} "
                f"({error.strerror or error})"
            ) from error
    return copied
