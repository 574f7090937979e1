"""The data that timm's weights and weight files were trained on."""

from __future__ import annotations

import re
from itertools import groupby

from mlbench.types import Pretraining
from mlbench_plugins.layers.pretrained import WeightFile

CAPTIONS, SELF, ONE = "captions", "none (self-supervised)", "one class an image"
SOURCES = {
    "in1k": ("ImageNet-1k", ONE),
    "in12k": ("ImageNet-12k", ONE),
    "in21k": ("ImageNet-21k", ONE),
    "in22k": ("ImageNet-22k", ONE),
    "jft": ("JFT", "several labels an image"),
    "ig1b": ("Instagram", "hashtags"),
    "yfcc100m": ("YFCC100M", "hashtags"),
    "m38m": ("Merged-38M", SELF),
    "lvd142m": ("LVD-142M", SELF),
    "lvd1689m": ("LVD-1689M", SELF),
    "sat493m": ("SAT-493M", SELF),
    "openai": ("OpenAI's image-text pairs", CAPTIONS),
    "laion400m": ("LAION-400M", CAPTIONS),
    "laion2b": ("LAION-2B", CAPTIONS),
    "laiona": ("LAION-A", CAPTIONS),
    "merged2b": ("Merged-2B", CAPTIONS),
    "datacomp1b": ("DataComp-1B", CAPTIONS),
    "datacompxl": ("DataComp-XL", CAPTIONS),
    "dfn2b": ("DFN-2B", CAPTIONS),
    "dfn5b": ("DFN-5B", CAPTIONS),
    "metaclip": ("MetaCLIP", CAPTIONS),
    "yfcc15m": ("YFCC15M", CAPTIONS),
    "webli": ("WebLI", CAPTIONS),
    "fcmae": ("ImageNet-1k", SELF),
    "mae": ("ImageNet-1k", SELF),
    "coco": ("COCO", "its 80 labels"),
    "voc": ("VOC", "its 20 labels"),
    "nuswide": ("NUS-WIDE", "its 81 labels"),
    "vg500": ("VG-500", "its 500 labels"),
    "openimages": ("OpenImages", "several labels an image"),
}
"""Word of timm's tags and of file names -> the data, and the labels that training on them saw."""
ANNOTATED = {"coco": "coco", "voc": "voc", "nus": "nuswide", "vg500": "vg500"}
ANNOTATED |= {"mscoco": "coco", "nuswide": "nuswide"}
"""Word without its year -> family of data sets whose labels such weights have seen."""


def of_tag(tag: str, licence: str | None) -> Pretraining:
    """Read what timm's weights were trained on from their tag, such as ``fcmae_ft_in22k_in1k``."""
    if not tag:
        return Pretraining(data="unknown: timm has no tag for these weights")
    return _named(tag).model_copy(update={"licence": licence or ""})


def of_file(file: WeightFile) -> Pretraining:
    """Read what a file was trained on from its header, else from its name.

    Keys of the header: ``pretraining`` (data sets, in order), ``pretraining_labels``, ``licence``
    and ``pretraining_saw`` (families of data sets whose labels were seen, separated by commas).
    """
    said = file.metadata
    if "pretraining" not in said:
        return _named(file.path.stem)
    saw = said.get("pretraining_saw", "").split(",")
    return Pretraining(
        data=said["pretraining"],
        labels=said.get("pretraining_labels", ""),
        licence=said.get("licence", ""),
        saw=tuple(sorted(filter(None, (name.strip() for name in saw)))),
    )


def _named(text: str) -> Pretraining:
    words = re.split(r"[^a-z0-9]+", text.lower())
    words = [ANNOTATED.get(w) or ANNOTATED.get(w.rstrip("0123456789"), w) for w in words]
    sources = [SOURCES[word] for word in words if word in SOURCES]
    saw = tuple(sorted({*words} & {*ANNOTATED.values()}))
    if not sources:
        return Pretraining(data=f"unknown: {text} names no data set", saw=saw)
    data, labels = (", then ".join(n for n, _ in groupby(p)) for p in zip(*sources, strict=True))
    return Pretraining(data=data, labels=labels, saw=saw)
