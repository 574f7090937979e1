"""Files that annotation tools export: COCO, Label Studio, Datumaro, FiftyOne and CVAT.

All but COCO's become a table of pictures and their lists of labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlbench.text import count, unknown
from mlbench.types import DataError
from mlbench_plugins.datasets.instances import convert_instances
from mlbench_plugins.datasets.manifest_cells import labels_in
from mlbench_plugins.datasets.manifest_columns import from_frame, label_studio_path
from mlbench_plugins.datasets.manifest_labels import Columns
from mlbench_plugins.datasets.manifest_listing import SPLITS, Listing
from mlbench_plugins.datasets.manifest_tables import is_path_of_picture
from mlbench_plugins.datasets.photographs import naming, read_xml

Row = tuple[str, str, Any, str]
"""Place in the file, picture, labels, and split or a blank."""


def from_json(file: Path, content: Any, columns: Columns) -> Listing | None:
    """The listing of a parsed json of one of the tools; None for any other json."""
    if isinstance(content, list):
        first = content[0] if content else None
        if isinstance(first, dict) and "data" in first and {"annotations", "id"} & first.keys():
            with naming(file):
                return _from_label_studio(file, content, columns)
    elif isinstance(content, dict):
        if {"images", "annotations"} <= content.keys():
            if columns != Columns():
                raise not_a_table(file)
            return _from_coco(file, content)
        if {"items", "categories"} <= content.keys():
            return _from_datumaro(file, content, columns)
        if isinstance(content.get("labels"), dict) and content.keys() <= {"classes", "labels"}:
            return _from_fiftyone(file, content, columns)
        pairs = content.get("images", ())
        if content.keys() == {"images", "classes"} and _are_pairs(pairs):
            rows = [(f"images[{i}]", *pair, "") for i, pair in enumerate(pairs)]
            tool = "a json of deep-object-reid"
            return _listing(file, tool, rows, columns, content["classes"])
    return None


def _are_pairs(entries: Any) -> bool:
    """True for deep-object-reid's pictures and labels: ``[["a.jpg", ["cat"]], ...]``."""
    return isinstance(entries, list) and all(
        isinstance(one, list) and [type(part) for part in one] == [str, list] for one in entries
    )


def not_a_table(place: Path) -> DataError:
    """The error for options of columns given for a form without columns."""
    return DataError(
        f"{place} is no table: label_names, separator and the options of columns do not apply; "
        "leave them out (a suite's own `labels` selects labels of any data set)"
    )


def _listing(
    file: Path,
    tool: str,
    rows: Sequence[Row],
    columns: Columns,
    names: Sequence[str] = (),
    folders: Iterable[Path] = (),
) -> Listing:
    """The listing of an export's rows.

    Args:
        file: the export.
        tool: what made it, in words.
        rows: one or several an image.
        columns: what the options say.
        names: the labels that the file declares, in their order.
        folders: where the pictures may be, besides the usual places.
    """
    import pandas as pd

    if not rows:
        raise DataError(f"{file}: {tool} has no annotated picture; annotate some, and export again")
    places, images, labels, splits = zip(*rows, strict=True)
    frame = pd.DataFrame({"image": images, "labels": labels}, places, dtype=object)
    if all(split.lower() in SPLITS for split in splits):
        frame["split"] = splits
    if names and columns.names is None:
        columns = replace(columns, names=tuple(names))
    with naming(file):
        found = from_frame(file, frame, replace(columns, separator=columns.separator or ";"))
    return replace(found, folders=(*found.folders, *folders), facts={"form": tool, **found.facts})


# ------------------------------------------------------------------------------------------- COCO
def _from_coco(file: Path, content: Any) -> Listing:
    """Read a parsed instances json; a label is present where an instance or crowd is annotated.

    The labels are in the order of their ids. A category without an image is kept, as a label
    without a positive.

    Raises:
        DataError: a part is missing, an id is used twice, or an annotation names an image or a
            category that is not there.
    """
    found = convert_instances(file, content)
    return Listing(
        source=file,
        name=file.resolve().stem,
        folders=(file.parent, file.parent / "images"),
        images=found.files,
        names=found.names,
        targets=found.targets,
        objects=found.objects,
        places=[f"image id {number}" for number in found.ids],
        facts={"form": "COCO: a label is present where an instance of it is"},
    )


# ----------------------------------------------------------------------------------- Label Studio
def _from_label_studio(file: Path, content: Sequence[Any], columns: Columns) -> Listing:
    """Tasks with choices. Of several annotations, the ground truth or else the first one counts.

    A task without an annotation is left out, as nothing is known of its labels.
    """
    rows: list[Row] = []
    without = several = 0
    for number, task in enumerate(content, start=1):
        place = f"task {task.get('id', number)}"
        done = [a for a in task.get("annotations", ()) if not a.get("was_cancelled")]
        done.sort(key=lambda a: not a.get("ground_truth"))
        if not done:
            without += 1
            continue
        chosen = [_choices(annotation, place) for annotation in done]
        several += any(set(one) != set(chosen[0]) for one in chosen)
        rows.append((place, label_studio_path(_picture(task["data"], columns)), chosen[0], ""))
    listing = _listing(file, "a json of Label Studio", rows, replace(columns, image=None))
    doubts = listing.doubts
    if without:
        doubts += (f"{count(without, 'task')} without an annotation left out",)
    if several:
        doubts += (f"{count(several, 'task')} with annotations that differ: the first is taken",)
    return replace(listing, doubts=doubts)


def _picture(data: Mapping[str, Any], columns: Columns) -> str:
    """A task's picture: the field that the option names, or ``image``, or the first with a path."""
    named = columns.image or "image"
    if columns.image is not None and named not in data:
        raise DataError(unknown(f"{named!r} in the option image_column", named, data))
    fields = [str(value) for value in data.values()]
    path = next(filter(is_path_of_picture, fields), "".join(fields[:1]))
    return str(data.get(named) or ("" if columns.image else path))


def _choices(annotation: Mapping[str, Any], place: str) -> list[str]:
    values = (result.get("value", {}) for result in annotation.get("result", ()))
    return [name for v in values if "choices" in v for name in labels_in(v, place, ";")]


# --------------------------------------------------------------------- Datumaro, FiftyOne and CVAT
def _from_datumaro(file: Path, content: Any, columns: Columns) -> Listing:
    """``annotations/SUBSET.json``; a label is present where any annotation, box or not, has it."""
    try:
        names = [label["name"] for label in content["categories"]["label"]["labels"]]
        rows = [
            (
                f"item {item['id']!r}",
                (item.get("image") or item.get("media") or {}).get("path") or item["id"],
                [names[a["label_id"]] for a in item["annotations"] if "label_id" in a],
                "",
            )
            for item in content["items"]
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise _broken(file, "Datumaro", error) from error
    images = file.parent.parent / "images"
    return _listing(file, "a json of Datumaro", rows, columns, names, (images / file.stem, images))


def _from_fiftyone(file: Path, content: Any, columns: Columns) -> Listing:
    """``labels.json`` of classifications: name without ending -> a class, its number, or several.

    An image whose label is null is left out.
    """
    names = content.get("classes") or ()
    rows: list[Row] = []
    for image, target in content["labels"].items():
        if target is None:
            continue
        if isinstance(target, dict):
            target = target.get("classifications", target)
        found = target if isinstance(target, list) else [target]
        labels = [one.get("label") if isinstance(one, dict) else one for one in found]
        try:
            labels = [names[one] if isinstance(one, int) else one for one in labels]
        except IndexError as error:
            raise _broken(file, "FiftyOne", error) from error
        rows.append((repr(image), image, labels, ""))
    return _listing(file, "a json of FiftyOne", rows, columns, names, (file.parent / "data",))


def from_cvat(file: Path, columns: Columns) -> Listing:
    """CVAT's XML for images; a label is present where a tag, box or outline has it."""
    root = read_xml(file, "export it again")
    images = root.findall("image")
    if root.tag != "annotations" or not images:
        raise DataError(
            f"{file} is no XML of images and their tags; export it from CVAT as 'CVAT for images'"
        )
    names = [name.text or "" for name in root.findall("meta//labels/label/name")]
    rows = [
        (
            f"image id {image.get('id')}",
            image.get("name", ""),
            [label for shape in image if (label := shape.get("label"))],
            image.get("subset", ""),
        )
        for image in images
    ]
    subsets = {image.get("subset", "") for image in images}
    folders = [file.parent / "images" / subset for subset in sorted(subsets)]
    return _listing(file, "an XML of CVAT", rows, columns, names, folders)


def _broken(file: Path, tool: str, error: Exception) -> DataError:
    what = f"{type(error).__name__}: {error}"
    return DataError(f"{file} is no whole json of {tool} ({what}); export it again")
