"""What can be said of data that no published digest names."""

from __future__ import annotations

from mlbench.data.open import parts
from mlbench.types import Splits


def standing(splits: Splits) -> str:
    """How far an unknown edition agrees with what the card says, in one sentence.

    Args:
        splits: the data set, opened, with all of its labels.

    Returns:
        Empty where sizes differ from the official ones, or the card does not tell them.
    """
    found = parts(splits)
    if any(
        name not in splits.official or len(index) != splits.official[name].images
        for name, index in found.items()
    ):
        return ""
    agree = []
    for name, index in found.items():
        wanted, positives = splits.official[name].positives, int((index.targets == 1).sum())
        if wanted is not None and wanted != positives:
            return (
                f"the sizes are the official ones, the positives of {name} are not: {positives:,} "
                f"instead of {wanted:,}"
            )
        agree += [name] if wanted is not None else []
    published = _published(splits)
    if published:
        return f"the sizes are the official ones, images or labels are not those of {published}"
    counted = f" and the positives of {' and '.join(agree)}" if agree else ""
    return (
        f"sizes{counted} are the official ones; no digest of it is published, so it stands on a "
        f"board of its own, which all who have the same files share: {splits.identity}"
    )


def fewer(splits: Splits) -> dict[str, int]:
    """Edition -> how many more images it has than there are here.

    Only for data that no list names: there, an image that is gone shows in nothing else. Of
    editions with equally many images the first one speaks for all.
    """
    card = splits.card
    if not card.unlisted or splits.identity in card.identities.values():
        return {}
    images = sum(len(index) for index in parts(splits).values())
    totals: dict[int, str] = {}
    for name, edition in card.editions.items():
        totals.setdefault(edition.train_images + edition.test_images, name)
    return {totals[total]: total - images for total in sorted(totals) if total > images}


def _published(splits: Splits) -> str:
    """The known edition of these sizes, if there is one."""
    sizes = tuple(len(index) for index in parts(splits).values())
    return next(
        (
            name
            for name, edition in splits.card.editions.items()
            if (edition.train_images, edition.test_images) == sizes
        ),
        "",
    )
