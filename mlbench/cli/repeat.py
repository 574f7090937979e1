"""``mlbench run --repeat FILE``: one run exactly as it was, or a word why not."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from mlbench import recipe
from mlbench.cli.console import errors
from mlbench.cli.plan import Plan, hold
from mlbench.data.open import open_run
from mlbench.engine.distributed import World
from mlbench.environment import commit, environment
from mlbench.recipe import Told
from mlbench.types import (
    DataError,
    Places,
    PluginError,
    RunRecord,
    RunSpec,
    Splits,
    SuiteError,
    WeightsError,
)

Given = tuple[str | None, Sequence[str]]
"""Identities of the weights and of the label vectors that the command line names."""
MATTERS = ("versions", "device", "threads", "processes")
"""Of the environment: what may move the last digits of a score."""


def plan_repeat(
    file: Path, given: Given, places: Places, world: World, retry_diverged: bool
) -> Plan:
    """The plan of one run, whose id is the one that the file tells.

    Args:
        file: a recipe, a pack, or a record.
        given: the weights and label vectors that the command line names.
        places: where data and results are.
        world: the processes that will carry it out.
        retry_diverged: whether the run is to be made again where the store has it as diverged.

    Raises:
        SuiteError: the file tells no run, another than its settings are of, or one that cannot be
            repeated by training.
        PluginError: a plugin is missing here, or is of another distribution or version.
        WeightsError: other weights or label vectors are given than the run had.
        DataError: the data in hand are not those of the run.
    """
    told = read(file)
    spec = told.spec
    if spec.checkpoint:
        raise SuiteError(
            f"{file}: weights of {spec.method}'s authors ({spec.checkpoint}) that were scored, not "
            "trained; `mlbench import` and `mlbench rescore` score them again"
        )
    if told.run_id not in (None, spec.run_id):
        raise SuiteError(
            f"{file}: says that it is run {told.run_id}, but its settings are those of run "
            f"{spec.run_id}: they were changed. Without the line run_id it is run as it stands"
        )
    here = environment(torch.device(places.device), world, spec)
    _refuse_other_plugins(file, told, here)
    _refuse_other_files(spec, given)
    splits = _open(told, places)
    planned = hold([spec], [], lambda _: splits, places, retry_diverged)
    for line in (*_differences(told, here), *_kept(planned, places)):
        errors.print(line, markup=False, highlight=False)
    return planned


def read(file: Path) -> Told:
    """What a recipe, a pack or a record says of its run.

    Raises:
        SuiteError: it cannot be read, or says nothing of a run.
    """
    if file.suffix.lower() == ".zip":
        return recipe.of(_packed(file))
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix.lower() == ".json":
            return recipe.of(RunRecord.model_validate_json(text))
        return recipe.read(text)
    except OSError as error:
        raise SuiteError(f"--repeat {file} cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, ValidationError) as error:
        raise SuiteError(
            f"--repeat {file}: no recipe (.yaml), record (.json) or pack (.zip) of a run"
        ) from error
    except SuiteError as error:
        raise SuiteError(f"--repeat {file} {error}") from error


def _packed(file: Path) -> RunRecord:
    """The record of a pack; `mlbench verify` judges the rest of it."""
    try:
        with zipfile.ZipFile(file) as pack:
            return RunRecord.model_validate_json(pack.read("record.json"))
    except OSError as error:
        raise SuiteError(f"--repeat {file} cannot be read ({error.strerror})") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError) as error:
        raise SuiteError(f"--repeat {file}: no pack of a run, or a damaged one") from error


def _refuse_other_plugins(file: Path, told: Told, here: Mapping[str, Any]) -> None:
    """The plugins that took part, in the versions that they had; what is missing was told."""
    had = (told.environment or {}).get("plugins")
    for name, version in here["plugins"].items():
        was = had.get(name) if isinstance(had, Mapping) else None
        if was is not None and was != version:
            raise PluginError(
                f"{file}: the run was made with {name} of {was}, and here it is of {version}; "
                f"install {was}, or take the line out of the recipe to run it with what is here"
            )


def _refuse_other_files(spec: RunSpec, given: Given) -> None:
    weights, words = given
    had = {"weights": spec.settings.weights, "words": spec.words}
    named = {"weights": [weights] if weights else [], "words": list(words)}
    for flag, was in had.items():
        found = ", ".join(named[flag])
        if named[flag] == [was] or not (named[flag] or was.startswith("sha256:")):
            continue
        if was.startswith("sha256:"):
            remedy = f"give the file of this digest with --{flag} FILE"
        else:
            remedy = f"leave out --{flag}"
        got = f", not {found}" if found else ""
        raise WeightsError(f"the run was made with {flag} {was}{got}; {remedy}")


def _open(told: Told, places: Places) -> Splits:
    """The data of the run."""
    spec = told.spec
    splits = open_run(spec, places)
    if splits.digest != spec.data:
        was = told.identity or spec.dataset
        raise DataError(
            f"the run was on {was} (digest {spec.data}), and the data in hand are "
            f"{splits.identity} (digest {splits.digest}): other images or labels; name the folder "
            "of the run's own with --data DIR"
        )
    return splits


def _differences(told: Told, here: Mapping[str, Any]) -> Iterator[str]:
    """What differs that is no setting: a score may come out a little different."""
    had, code = told.environment or {}, commit()
    parts = [
        f"{name} {_plain(had[name])} (here {_plain(here[name])})"
        for name in MATTERS
        if name in had and had[name] != here[name]
    ]
    if told.commit is not None and told.commit != code:
        parts.append(f"commit {told.commit} (here {code or 'unknown'})")
    if parts:
        yield f"the run was made with {'; '.join(parts)}: its numbers may come out otherwise"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kept(planned: Plan, places: Places) -> Iterator[str]:
    for spec in planned.done:
        yield (
            f"run {spec.run_id} is in {places.results} already; name another store with --results "
            "to make it again"
        )
