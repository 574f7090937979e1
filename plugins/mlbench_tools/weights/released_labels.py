"""The labels of a released file: their names, order, graph and word vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlbench import registry
from mlbench.data.words import word_vectors
from mlbench.text import shorten
from mlbench.types import WORD_WIDTH, DataError, LabelContext, Released, WeightsError
from mlbench_tools.weights.reading import read

if TYPE_CHECKING:
    from torch import Tensor


def dataset_names(dataset: str, data: Path | None, cache: Path) -> tuple[str, ...]:
    """The label names of a data set; its files are read only if the plugin does not list them.

    Raises:
        DataError: the files are needed, and nothing names them.
    """
    factory = registry.find("dataset", dataset).load()
    names = getattr(factory, "names", None)
    if isinstance(names, tuple):
        return names
    if data is None and ":" not in dataset:  # else it names its files itself
        raise DataError(
            f"the label names of {dataset} are in its files only; give their folder with --data "
            "DIR, or a text file of one name per line with --labels FILE"
        )
    return tuple(factory(data, cache).names)


def listed_names(file: Path) -> tuple[str, ...]:
    """Names from a text file of one per line.

    Raises:
        DataError: the file cannot be read, is empty, or names a label twice.
    """
    try:
        # Not splitlines(), which would also cut names at Unicode's rarer line separators.
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give a UTF-8 text of one name a line"
        raise DataError(f"{file} cannot be read as a list of names ({error}); {remedy}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise DataError(f"{file} must list different names, one per line; twice: {twice or 'none'}")
    return names


def released_order(
    released: Released, dataset: str, names: Sequence[str], content: Any, asked: str | None
) -> tuple[str, ...]:
    """The label names in the order of a released file.

    It is the first that is given of: the user's choice (``official``, ``alphabetical``, or a file
    of names), ``idx_to_class`` in the file if it names these labels, and the order of the release.

    Raises:
        DataError: the names in a file of names are not those of the data set.
        WeightsError: the order is unknown.
    """
    if asked not in (None, "official", "alphabetical"):
        listed = listed_names(Path(str(asked)))
        if different := sorted(set(listed) ^ set(names)):
            raise DataError(f"--order {asked} and the data set differ in {shorten(different)}")
        return listed
    classes = content.get("idx_to_class") if isinstance(content, Mapping) else None
    if asked is None and isinstance(classes, Mapping):
        listed = tuple(str(classes[key]) for key in sorted(classes, key=int))
        if set(listed) == set(names):
            return listed
    known: str | Mapping[str, str] | None = asked or released.order
    if isinstance(known, Mapping):
        card = registry.dataset_card(registry.find("dataset", dataset))
        known = known.get(dataset) or known.get(card.family if card else "")
    if known is None:
        raise WeightsError(
            f"{released.title}: the order of its labels for {dataset} is not known; give --order "
            "official (the data set's own), alphabetical, or a file of names, one per line"
        )
    return tuple(sorted(names)) if known == "alphabetical" else tuple(names)


_NEEDS = {
    "graph": "label graph; give the authors' own with --graph FILE (.npy, .npz or .pkl: a "
    "matrix P(j | i), or counts 'adj' with positives 'nums'), its rows in the file's label order",
    "words": "word vectors; give the authors' own with --words FILE (.npy or .pkl, rows in "
    "the file's label order; or by name: GloVe's text, or .npz of names and vectors)",
}


def file_context(
    released: Released,
    names: Sequence[str],
    head_state: Mapping[str, Tensor],
    graph: Path | None = None,
    words: Path | None = None,
) -> tuple[LabelContext, NDArray[np.float64] | None]:
    """The label context that a head is built with, and the graph P(j | i) if it was given.

    Raises:
        WeightsError: what the method needs is not given.
    """
    given = {"graph": graph, "words": words}
    for need, buffers in released.needs.items():
        if given[need] is None and not set(buffers) <= head_state.keys():
            raise WeightsError(f"the files of {released.title} have no {_NEEDS[need]}")
    matrix_CC = None if graph is None else read_graph(graph, len(names))
    if words is not None:
        embeddings_CE = read_words(words, names)
    else:
        given_words = [name for name in released.needs.get("words", ()) if name in head_state]
        width = head_state[given_words[0]].shape[1] if given_words else WORD_WIDTH
        embeddings_CE = np.zeros((len(names), width), np.float32)
    counts_CC = np.eye(len(names), dtype=np.float32)
    return LabelContext(tuple(names), counts_CC, embeddings_CE, 1), matrix_CC


def read_graph(file: Path, labels: int) -> NDArray[np.float64]:
    """P(j | i) at row i and column j [C, C], with the diagonal of the file.

    A mapping holds counts under ``adj`` and positives under ``nums``, as ML-GCN's files do; a
    single matrix holds the probabilities themselves.

    Raises:
        WeightsError: the file holds neither.
    """
    content = read(file)
    if isinstance(content, Mapping) and {"adj", "nums"} <= set(content):
        counts_CC = _array(file, content["adj"], (labels, labels))
        positives_C = _array(file, content["nums"], (labels,))
        return counts_CC / np.maximum(positives_C, 1)[:, None]
    return _array(file, content, (labels, labels))


def read_words(file: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of labels [C, E]: by name if the file has names, else by row.

    Raises:
        WeightsError: the file does not hold one vector per label.
        DataError: a file of names lacks a label.
    """
    content = None if file.suffix in (".txt", ".vec") else read(file)
    named = isinstance(content, Mapping) and any(str(k).endswith("names") for k in content)
    if content is None or named:
        found = word_vectors(names, file)
        if missing := [name for name in names if name not in found.found]:
            raise DataError(f"{file} has no vector for {shorten(missing)}")
        return np.stack([found.found[name] for name in names]).astype(np.float32)
    return _array(file, content, (len(names), None)).astype(np.float32)


def _array(file: Path, content: Any, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """The only array in a file; None in the shape stands for any size."""
    if isinstance(content, Mapping) and len(content) == 1:
        content = next(iter(content.values()))
    array = np.asarray(content)
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise WeightsError(
            f"{file}: holds {array.dtype} of {list(array.shape)}, but finite numbers of [{wanted}] "
            "are needed, one row per label"
        )
    return array.astype(np.float64)
