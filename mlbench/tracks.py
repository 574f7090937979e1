"""How each track settles a run: from a recipe, a data set's budget and overrides to settings."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from mlbench import registry
from mlbench.text import unknown
from mlbench.types import DatasetCard, PluginError, Recipe, Settings, SuiteError, Track

PROBE: dict[str, Any] = {
    "loss": "asl",
    "epochs": 4,
    "batch_size": 32,
    "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 1e-2},
    "schedule": {"name": "one_cycle"},
    "frozen_stages": -1,
    "augmentation": (),
}
"""What the probe track changes in a data set's budget: the backbone is frozen and its maps are
made once, so there is nothing to augment, and a head alone bears a larger step. The loss ignores
easy negatives: with cross entropy most of so few epochs go into learning that labels are rare."""

PIXELS = {"resize", "sizes"}
"""Options of augmentation steps that are sizes in pixels."""

AXES = ("backbone", "weights", "loss", "image_size", "epochs", "selection")
"""Settings that a matrix varies, or that a flag sets for all of its methods alike."""

TUNABLE = {"optimizer", "head_options"}
"""What ``Recipe.tuned`` may set; of the optimiser, only its learning rate and weight decay."""


def settle(
    track: Track,
    method: str,
    dataset: str,
    card: DatasetCard,
    overrides: Iterable[Mapping[str, Any]] = (),
) -> Settings:
    """The settings of one run: the track's rules, then overrides laid on top in order.

    ``published`` takes the recipe's settings for the data set. ``controlled`` takes the data set's
    budget for everything but the head, and ``probe`` that budget with ``PROBE`` over it; both add
    what was tuned for the method under an equal budget.

    Raises:
        PluginError: the recipe is broken, or tunes what all methods must share.
        SuiteError: an override that is no setting, or of the wrong type.
    """
    fields = _without_alias(_rules(track, method, dataset, card))
    try:
        before = Settings.model_validate(fields)
        for over in map(_without_alias, overrides):
            fields = merge(_without_stale_options(fields, over), over)
        settings = _scale_pixels(Settings.model_validate(fields), before)
    except ValidationError as error:
        raise SuiteError(f"settings of {method}: {explain(error)}") from error
    if track == "probe" and (settings.frozen_stages != -1 or settings.augmentation):
        raise SuiteError(
            "the probe track trains on feature maps that were made once: frozen_stages and "
            "augmentation cannot be set there; use --track controlled"
        )
    if settings.selection == "test" and track != "published":
        raise SuiteError(
            f"selection: test chooses the epoch on the split that is scored, which the {track} "
            "track does not; use --set selection=validation, or --track published for what most "
            "papers did"
        )
    return settings


def own(track: Track, method: str, dataset: str, card: DatasetCard, ran: Settings) -> Settings:
    """What a track makes of a run itself: its settings wherever it does not let methods differ.

    Whatever an axis, a flag or the tuning of a method may set is as in ``ran``; what differs from
    it was set by hand.

    Raises:
        PluginError, SuiteError: as ``settle``.
    """
    plain = ran.model_dump()
    settled = settle(track, method, dataset, card, [{name: plain[name] for name in AXES}])
    rates = {"lr": ran.optimizer.lr, "weight_decay": ran.optimizer.weight_decay}
    return settled.model_copy(
        update={
            "loss": ran.loss,  # older records may have an alias
            "optimizer": settled.optimizer.model_copy(update=rates),
            "head_options": ran.head_options,
            "loss_options": ran.loss_options,
        }
    )


def authors_options(track: Track, method: str, dataset: str) -> dict[str, Any]:
    """Options of the data set that the method's authors chose; none but in the published track."""
    return of_dataset(recipe_of(method).dataset_options, dataset) if track == "published" else {}


def of_dataset(table: Mapping[str, dict[str, Any]], dataset: str) -> dict[str, Any]:
    """What a recipe's table holds for a data set: under its own name, or else its family's.

    Args:
        table: data set or family -> what the recipe says of it.
        dataset: plugin name; an empty one stands for none.
    """
    if not dataset or dataset in table:
        return table.get(dataset, {})
    card = getattr(registry.find("dataset", dataset).load(), "card", None)
    return table.get(card.family, {}) if isinstance(card, DatasetCard) else {}


def _rules(track: Track, method: str, dataset: str, card: DatasetCard) -> dict[str, Any]:
    recipe = recipe_of(method)
    if track == "published":
        return merge(recipe.settings.model_dump(), of_dataset(recipe.per_dataset, dataset))
    fields = merge({"loss": "bce"}, card.budget)
    if track == "probe":
        fields = merge(fields, PROBE)
    fields["head"] = recipe.settings.head
    fields["head_options"] = recipe.settings.head_options
    return merge(fields, _tuned(recipe, method, track))


def _without_alias(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields with the canonical name of the loss, so that one function is one run."""
    loss = fields.get("loss")
    if not isinstance(loss, str):
        return dict(fields)
    return {**fields, "loss": registry.canonical("loss", loss)}


def _without_stale_options(fields: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a head or loss go when another takes its place."""
    for part in ("head", "loss"):
        if part in over and over[part] != fields.get(part):
            fields = {**fields, f"{part}_options": {}}
    return fields


def _scale_pixels(settings: Settings, before: Settings) -> Settings:
    """Sizes in pixels follow an image size that was overridden, unless they were too: a recipe that
    crops 576 out of 640 crops 224 out of 249, not out of 640.
    """  # noqa: D205
    ratio = settings.image_size / before.image_size
    if ratio == 1:
        return settings

    def scale(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [scale(one) for one in value]
        return None if value is None else round(value * ratio)

    steps = []
    for step in settings.augmentation if settings.augmentation == before.augmentation else ():
        pixels = {k: scale(v) if k in PIXELS else v for k, v in step.options.items()}
        steps.append(step.model_copy(update={"options": pixels}))
    asked = settings.preprocessing
    resize = scale(asked.resize) if asked.resize == before.preprocessing.resize else asked.resize
    return settings.model_copy(
        update={
            "augmentation": tuple(steps) or settings.augmentation,
            "preprocessing": asked.model_copy(update={"resize": resize}),
        }
    )


def recipe_of(method: str) -> Recipe:
    """A method's recipe; a head without one has the settings of all that name nothing else."""
    if "recipe" in registry.kinds_of(method):
        recipe = registry.find("recipe", method).load()
        assert isinstance(recipe, Recipe), f"recipe {method!r} is a {type(recipe).__name__}"
        return recipe
    return Recipe(title=method, bibtex="", summary="", settings=Settings(head=method))


def _tuned(recipe: Recipe, method: str, track: Track) -> dict[str, Any]:
    tuned = recipe.tuned.get(track, {})
    beyond = set(tuned) - TUNABLE | set(tuned.get("optimizer", {})) - {"lr", "weight_decay"}
    if beyond:
        raise PluginError(
            f"recipe {method!r} tunes {', '.join(sorted(beyond))} for the {track} track; only the "
            "learning rate, the weight decay and options of the head may differ between methods"
        )
    return tuned


def merge(fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` with ``over`` laid on top, mappings merged key by key."""
    merged = dict(fields)
    for name, value in over.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def nest(dotted: str, value: Any) -> dict[str, Any]:
    """``optimizer.lr`` and a value to a mapping in a mapping."""
    first, _, rest = dotted.partition(".")
    return {first: nest(rest, value) if rest else value}


def explain(error: ValidationError, model: type[BaseModel] = Settings) -> str:
    """A validation error of a model in one line: which field, what value, what would do."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            name = str(item["loc"][-1])
            lines.append(unknown(f"option {where!r}", name, _siblings(model, item["loc"])))
        else:
            said = item["msg"].removeprefix("Value error, ")
            lines.append(f"{where} = {item['input']!r}: {said}")
    return "; ".join(lines)


def _siblings(model: Any, location: tuple[int | str, ...]) -> Iterable[str]:
    """Names of the fields beside the one at this location of a model."""
    for part in location[:-1]:
        if isinstance(part, int):
            model = typing.get_args(model)[0]
        else:
            model = model.model_fields[part].annotation
    return list(model.model_fields)
