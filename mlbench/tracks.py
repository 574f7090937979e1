"""Tracks: make the settings of a run from a recipe, a data set's budget and overrides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ValidationError

from mlbench import registry
from mlbench.registry import with_defaults
from mlbench.text import describe_errors, flatten
from mlbench.types import (
    Augmentation,
    DatasetCard,
    PluginError,
    Recipe,
    Settings,
    SuiteError,
    Track,
)

PROBE: dict[str, Any] = {
    "loss": "asl",
    "epochs": 4,
    "batch_size": 32,
    "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 1e-2},
    "schedule": {"name": "one_cycle"},
    "frozen_stages": -1,
    "augmentation": (),
}
"""What the probe track changes in a data set's budget. The backbone is frozen and its feature maps
are computed once, so nothing is augmented, and a head alone allows a higher learning rate. The loss
plays down easy negatives: with cross entropy, most of so few epochs go into learning that labels
are rare."""

PIXELS = {"resize", "sizes"}
"""Options of augmentation steps that are in pixels."""

TUNABLE = {"optimizer", "head_options"}
"""Settings that ``Recipe.tuned`` may set; of the optimizer, only ``lr`` and ``weight_decay``."""


def settle(
    track: Track,
    method: str,
    dataset: str,
    card: DatasetCard,
    overrides: Iterable[Mapping[str, Any]] = (),
) -> Settings:
    """Return the settings of one run: the rules of the track, then the overrides in order.

    All options of head, loss and augmentation are named, defaults included.

    ``zero_shot`` takes the recipe's model and trains nothing. ``published`` takes the recipe's
    settings for the data set. ``controlled`` takes the data set's
    budget for everything but the head, and ``probe`` changes that budget by ``PROBE``; both add
    what was tuned for the method under an equal budget.

    Raises:
        PluginError: the recipe is broken, or tunes a setting that all methods must share.
        SuiteError: an override is unknown or of the wrong type.
    """
    fields = _canonical_loss(_rules(track, method, dataset, card))
    try:
        before = Settings.model_validate(fields)
        options: dict[str, Any] = {}
        given: dict[str, Any] = {}
        for over in map(_canonical_loss, overrides):
            fields = merge(_without_stale_options(fields, over, options), over)
            given = merge(given, over)
        settings = Settings.model_validate(fields)
        refuse_truths(given, settings)
        settings = name_defaults(_scale_pixels(settings, before.image_size, given))
    except ValidationError as error:
        raise SuiteError(f"settings of {method}: {describe_errors(error, Settings)}") from error
    if not settings.ema_decay:  # warms nothing up
        settings = settings.model_copy(update={"ema_warmup": False})
    changed = settings.frozen_stages != -1 or settings.augmentation or settings.mixing
    if track == "probe" and changed:
        raise SuiteError(
            "the probe track computes feature maps once, so that frozen_stages, augmentation and "
            "mixing cannot be set; use --track controlled"
        )
    if (settings.epochs == 0) != (track == "zero_shot"):
        raise SuiteError(
            "the zero_shot track trains nothing; leave out --epochs"
            if settings.epochs
            else "epochs = 0 trains nothing; give at least 1, or --track zero_shot"
        )
    if settings.selection == "test" and track != "published":
        raise SuiteError(
            f"selection: test chooses the epoch on the test split, as the {track} track does not; "
            "use --set selection=validation, or --track published to do as most papers did"
        )
    return settings


def for_dataset(table: Mapping[str, dict[str, Any]], dataset: str) -> dict[str, Any]:
    """Look up a data set in a recipe's table by its name, else by its family; empty if missing."""
    if not dataset or dataset in table:
        return table.get(dataset, {})
    card = registry.dataset_card(registry.find("dataset", dataset))
    return table.get(card.family, {}) if card else {}


def _rules(track: Track, method: str, dataset: str, card: DatasetCard) -> dict[str, Any]:
    recipe = recipe_of(method)
    if track == "zero_shot":
        kept = {"backbone", "head", "head_options", "image_size", "preprocessing"}
        return recipe.settings.model_dump(include=kept) | {"epochs": 0, "frozen_stages": -1}
    if track == "published":
        return merge(recipe.settings.model_dump(), for_dataset(recipe.per_dataset, dataset))
    tuned = recipe.tuned.get(track, {})
    forbidden = set(tuned) - TUNABLE | set(tuned.get("optimizer", {})) - {"lr", "weight_decay"}
    if forbidden:
        raise PluginError(
            f"recipe {method!r} tunes {', '.join(sorted(forbidden))} for the {track} track; only "
            "the learning rate, the weight decay and head options may differ between methods"
        )
    head = {"head": recipe.settings.head, "head_options": recipe.settings.head_options}
    return merge({**shared_settings(track, card), **head, "ema_warmup": True}, tuned)


def shared_settings(track: Track, card: DatasetCard) -> dict[str, Any]:
    """Return the settings that all methods share in the controlled or the probe track."""
    fields = merge({"loss": "bce"}, card.budget)
    return merge(fields, PROBE) if track == "probe" else fields


def _canonical_loss(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Replace an alias of a loss by its canonical name, so that both plan the same run."""
    loss = fields.get("loss")
    if not isinstance(loss, str):
        return dict(fields)
    return {**fields, "loss": registry.canonical("loss", loss)}


def _without_stale_options(
    fields: dict[str, Any], over: Mapping[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Drop the options of a head or loss that is replaced by another.

    Args:
        fields: settings so far.
        over: the override that comes next.
        options: those that overrides gave without naming a head or loss: they apply to whichever
            is chosen, so they stay. Those of ``over`` are added.
    """
    for part in ("head", "loss"):
        name = f"{part}_options"
        if isinstance(given := over.get(name), Mapping) and part not in over:
            options[name] = merge(options.get(name, {}), given)
        elif part in over and over[part] != fields.get(part):
            fields = {**fields, name: options.get(name, {})}
    return fields


def refuse_truths(given: Mapping[str, Any], made: BaseModel) -> None:
    """Raise ``SuiteError`` if a model has numbers where true or false was given."""
    found = flatten(made.model_dump())
    for name, value in flatten(given).items():
        if any(_truths(value)) and _truths(found.get(name, value)) != _truths(value):
            raise SuiteError(f"{name} = {value}: give a number")


def _truths(value: Any) -> list[bool]:
    """True for each value that is a boolean; a single value counts as a list of one."""
    return [isinstance(v, bool) for v in (value if isinstance(value, list | tuple) else [value])]


def name_defaults(settings: Settings) -> Settings:
    """Name every option of head, loss, augmentation and mixing, so that run ids cover them."""
    from mlbench.data.mixing import make_mixing  # torch, which reading a suite does not need
    from mlbench.data.transforms import build_steps

    def named(one: Augmentation, make: Callable[[Augmentation], BaseModel]) -> Augmentation:
        with suppress(SuiteError):  # reported by ``mlbench.preflight.refusal``, for this run alone
            return one.model_copy(update={"options": make(one).model_dump(mode="json")})
        return one

    steps, mixing = settings.augmentation, settings.mixing
    return settings.model_copy(
        update={
            "mixing": named(mixing, make_mixing) if mixing else None,
            "head_options": with_defaults("head", settings.head, settings.head_options),
            "loss_options": with_defaults("loss", settings.loss, settings.loss_options),
            "augmentation": tuple(named(step, lambda one: build_steps([one])[0]) for step in steps),
        }
    )


def _scale_pixels(settings: Settings, before: int, given: Mapping[str, Any]) -> Settings:
    """Scale sizes in pixels with the image size, which was ``before``, unless they are ``given``.

    A recipe that crops 576 out of 640 crops 224 out of 249, not out of 640.
    """
    ratio = settings.image_size / before
    if ratio == 1:
        return settings

    def scale(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [scale(one) for one in value]
        return None if value is None else round(value * ratio)

    steps, preprocessing = settings.augmentation, settings.preprocessing
    if "augmentation" not in given:
        options = [{k: scale(v) if k in PIXELS else v for k, v in s.options.items()} for s in steps]
        pairs = zip(steps, options, strict=True)
        steps = tuple(step.model_copy(update={"options": scaled}) for step, scaled in pairs)
    if "resize" not in given.get("preprocessing", {}):
        resize = scale(preprocessing.resize)
        preprocessing = preprocessing.model_copy(update={"resize": resize})
    return settings.model_copy(update={"augmentation": steps, "preprocessing": preprocessing})


def recipe_of(method: str) -> Recipe:
    """Return a method's recipe; a head without one gets default settings."""
    if "recipe" in registry.kinds_of(method):
        recipe = registry.find("recipe", method).load()
        assert isinstance(recipe, Recipe), f"recipe {method!r} is a {type(recipe).__name__}"
        return recipe
    return Recipe(title=method, bibtex="", summary="", settings=Settings(head=method))


def merge(fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``over`` into a copy of ``fields``, nested mappings key by key."""
    merged = dict(fields)
    for name, value in over.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def nest(dotted: str, value: Any) -> dict[str, Any]:
    """Turn a dotted name and a value into nested mappings."""
    first, _, rest = dotted.partition(".")
    return {first: nest(rest, value) if rest else value}
