"""What a released file does not say of its labels: their names, order, graph and word vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlbench import registry
from mlbench.data.words import word_vectors
from mlbench.types import DataError, LabelContext, Released, WeightsError
from mlbench_tools.weights.reading import read

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 300
"""Of word vectors that no head will look at."""
_BY_NAME = (".txt", ".vec")


def dataset_names(dataset: str, data: Path | None, cache: Path) -> tuple[str, ...]:
    """The label names of a data set, without its files where the plugin knows them by heart.

    Raises:
        DataError: only the files tell, and they are not given.
    """
    factory = registry.find("dataset", dataset).load()
    names = getattr(factory, "names", None)
    if isinstance(names, tuple):
        return names
    if data is None:
        raise DataError(
            f"the label names of {dataset} stand in its files only; give their folder with --data "
            "DIR, or a text file of one name a line with --labels FILE"
        )
    return tuple(factory(data, cache).names)


def listed_names(file: Path) -> tuple[str, ...]:
    """Names from a text file of one a line.

    Raises:
        DataError: it cannot be read, is empty, or names a label twice.
    """
    try:
        # Not splitlines(), which would also cut names at Unicode's rarer line separators.
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a list of names: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise DataError(f"{file} must list different names, one a line; twice: {twice or 'none'}")
    return names


def released_order(
    released: Released, names: Sequence[str], content: Any, asked: str | None
) -> tuple[str, ...]:
    """The label names in the order of a released file.

    What the user says counts first (``official``, ``alphabetical``, or a file of names), then
    ``idx_to_class`` in the file, where it names these labels, then what is known of the release.

    Raises:
        DataError: a file of names that are not those of the data set.
    """
    if asked not in (None, "official", "alphabetical"):
        listed = listed_names(Path(str(asked)))
        if set(listed) != set(names):
            strange = sorted(set(listed) ^ set(names))
            raise DataError(f"--order {asked} and the data set differ in {', '.join(strange[:5])}")
        return listed
    told = content.get("idx_to_class") if isinstance(content, Mapping) else None
    if asked is None and isinstance(told, Mapping):
        listed = tuple(str(told[key]) for key in sorted(told, key=int))
        if set(listed) == set(names):
            return listed
    alphabetical = (asked or released.order) == "alphabetical"
    return tuple(sorted(names)) if alphabetical else tuple(names)


def context(
    released: Released,
    names: Sequence[str],
    held: Mapping[str, Tensor],
    graph: Path | None = None,
    words: Path | None = None,
) -> tuple[LabelContext, NDArray[np.float64] | None]:
    """What a head is built with, and the graph P(j | i), for labels in the order of the file.

    Args:
        released: which says what the method needs.
        names: of the labels, in the order of the file.
        held: the head's parameters and buffers that the file holds.
        graph: a matrix P(j | i), or counts with positives, in that order (see ``read_graph``).
        words: vectors in that order, or by name.

    Raises:
        WeightsError: what the method needs is not given.
    """
    given = {"graph": graph, "words": words}
    for need, buffers in released.needs.items():
        if given[need] is None and not set(buffers) <= held.keys():
            raise WeightsError(f"the files of {released.title} have no {_NEEDS[need]}")
    matrix = None if graph is None else read_graph(graph, len(names))
    counts_CC = np.eye(len(names), dtype=np.float32)
    width = next((held[n].shape[1] for n in released.needs.get("words", ()) if n in held), WIDTH)
    embeddings_CE = np.zeros((len(names), width), np.float32)
    if words is not None:
        embeddings_CE = read_words(words, names)
    return LabelContext(tuple(names), counts_CC, embeddings_CE, 1), matrix


_NEEDS = {
    "graph": "label graph; give the authors' own with --graph FILE (.npy, .npz or .pkl: a "
    "matrix P(j | i), or counts 'adj' with positives 'nums'), its rows in the file's label order",
    "words": "word vectors; give the authors' own with --words FILE (.npy or .pkl, rows in "
    "the file's label order; or by name: GloVe's text, or .npz of names and vectors)",
}


def read_graph(file: Path, labels: int) -> NDArray[np.float64]:
    """P(j | i) at row i and column j, [C, C], its diagonal as the file has it.

    A mapping holds counts under ``adj`` and positives under ``nums``, as ML-GCN's files do; a
    single matrix holds the probabilities themselves.

    Raises:
        WeightsError: it holds neither.
    """
    content = read(file)
    if isinstance(content, Mapping) and {"adj", "nums"} <= set(content):
        counts_CC = np.asarray(content["adj"], np.float64)
        _check_shape(file, counts_CC, (labels, labels))
        positives_C = np.asarray(content["nums"], np.float64)
        _check_shape(file, positives_C, (labels,))
        return counts_CC / np.maximum(positives_C, 1)[:, None]
    matrix_CC = np.asarray(_only_array(file, content), np.float64)
    _check_shape(file, matrix_CC, (labels, labels))
    return matrix_CC


def read_words(file: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """Vectors [C, E] of labels: by name where the file has names, else by row.

    Raises:
        WeightsError: not a vector a label.
        DataError: a label has no vector in a file of names.
    """
    content = None if file.suffix in _BY_NAME else read(file)
    named = isinstance(content, Mapping) and any(str(k).endswith("names") for k in content)
    if content is None or named:
        found = word_vectors(names, file)
        if missing := [name for name in names if name not in found.found]:
            raise DataError(f"{file} has no vector for {', '.join(missing[:5])}")
        return np.stack([found.found[name] for name in names]).astype(np.float32)
    vectors_CE = np.asarray(_only_array(file, content), np.float32)
    _check_shape(file, vectors_CE, (len(names), *vectors_CE.shape[1:2]))
    return vectors_CE


def _only_array(file: Path, content: Any) -> Any:
    if isinstance(content, Mapping) and len(content) == 1:
        content = next(iter(content.values()))
    array = np.asarray(content)
    if array.dtype.kind not in "fiu":
        raise WeightsError(
            f"{file}: must hold one array of numbers, not a {type(content).__name__}"
        )
    return array


def _check_shape(file: Path, array: NDArray[Any], wanted: tuple[int, ...]) -> None:
    if array.shape != wanted or not np.isfinite(array).all():
        raise WeightsError(
            f"{file}: holds {list(array.shape)} numbers, but finite ones of {list(wanted)} are "
            "needed, a row a label"
        )
