"""What is known about the labels before any image is seen: their graph and their word vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlbench.data.graphs import label_graph
from mlbench.data.words import WordVectors, word_vectors
from mlbench.types import (
    DataError,
    Graph,
    Index,
    LabelContext,
    ObjectCounts,
    Targets,
    unknown_objects,
)

WIDTH = 300
"""Width of the embedding that is derived from the co-occurrence, and of GloVe's usual vectors."""
NORM = 6.5
"""Length of its rows: what GloVe's vectors of label names have, so that heads start alike."""
_CELLS = 1 << 24
"""Entries of a matrix that is worked on at a time, which bounds the memory of copies."""


def label_context(
    index: Index,
    names: Sequence[str],
    words: Path | Literal["cooccurrence", "random"] = "cooccurrence",
    *,
    graph: Graph = "cooccurrence",
    seed: int = 0,
    objects: Callable[[Index], ObjectCounts] = unknown_objects,
) -> tuple[LabelContext, tuple[str, ...]]:
    """The label context of a training split, and notes for the record on how it was made.

    Args:
        index: the TRAIN split; labels of the test split must never come in here.
        names: the C labels, the columns of its targets.
        words: a file of word vectors (see ``mlbench.data.words``); ``cooccurrence`` derives the
            embeddings from the true co-occurrence, whatever the graph (see
            ``cooccurrence_embedding``), ``random`` draws them (see ``random_embedding``).
        graph: what the counts are replaced with (see ``mlbench.data.graphs``).
        seed: of what is drawn at random.
        objects: counts the objects of each label in the images of ``index``; it is called if a head
            asks for them, whatever the graph.

    Raises:
        DataError: the names do not fit the targets, or the file is missing, malformed, or knows
            none of the labels.
    """
    names = tuple(names)
    if len(names) != index.targets.shape[1] or len(set(names)) != len(names):
        raise DataError(
            f"{len(names)} label names ({len(set(names))} different ones) do not fit label vectors "
            f"of width {index.targets.shape[1]}; every column needs a name of its own"
        )
    counts_CC = cooccurrence(index.targets)
    notes: tuple[str, ...]
    if isinstance(words, Path):
        vectors = word_vectors(names, words)
        embeddings_CE = _fill(names, vectors, words)
        notes = _notes(vectors, words)
    elif words == "random":
        embeddings_CE = random_embedding(names, seed)
        notes = (f"label embeddings drawn at random with seed {seed}",)
    else:
        embeddings_CE = cooccurrence_embedding(counts_CC, len(index), names)
        notes = ("label embeddings derived from the co-occurrence of the training labels",)
    if graph != "cooccurrence":
        counts_CC = label_graph(graph, counts_CC, seed)
        drawn = f", drawn with seed {seed}" if graph == "random" else ""
        notes += (f"label graph: {graph}{drawn}",)
    count = partial(objects, index)
    return LabelContext(names, counts_CC, embeddings_CE, len(index), count), notes


def cooccurrence(targets_NC: Targets) -> NDArray[np.float32]:
    """float32 [C, C]: in how many images two labels are both present; exact up to 2**24.

    The diagonal counts each label's positives; an unknown label is not a positive.
    """
    images, labels = targets_NC.shape
    sizes, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for rows in _row_blocks(images, labels):
        present_BC = targets_NC[rows] == 1
        sizes.append(np.count_nonzero(present_BC, axis=1))
        columns.append(np.flatnonzero(present_BC) % labels)
    return cooccurrence_of_lists(np.concatenate(columns), np.concatenate(sizes), labels)


def cooccurrence_of_lists(
    columns_P: NDArray[np.int64], sizes_N: NDArray[np.int64], labels: int
) -> NDArray[np.float32]:
    """``cooccurrence`` from lists, for labels too many to be held as a matrix of targets.

    Time grows with the pairs of labels in the images, memory with P and with C^2.

    Args:
        columns_P: the positives of all images, one image after the other, none of them twice.
        sizes_N: how many belong to each image.
        labels: C.
    """
    counts_CC = np.zeros((labels, labels), np.float32)
    ends_N, pairs_N = sizes_N.cumsum(), (sizes_N**2).cumsum()
    first = 0
    while first < len(sizes_N):
        done = pairs_N[first - 1] if first else 0
        last = max(int(np.searchsorted(pairs_N, done + _CELLS // 8, side="right")), first + 1)
        start = ends_N[first - 1] if first else 0
        own, other = _pairs(columns_P[start : ends_N[last - 1]], sizes_N[first:last])
        np.add.at(counts_CC.reshape(-1), own * labels + other, np.float32(1))
        first = last
    return counts_CC


def _pairs(
    columns_P: NDArray[np.int64], sizes_B: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All ordered pairs of labels of the same image, a label with itself, too."""
    times_P = np.repeat(sizes_B, sizes_B)
    starts_P = np.repeat(sizes_B.cumsum() - sizes_B, sizes_B)
    # the place of a pair's second label: where its image starts, and how many pairs came before
    places = np.arange(times_P.sum()) + np.repeat(starts_P - times_P.cumsum() + times_P, times_P)
    return np.repeat(columns_P, times_P), columns_P[places]


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, _CELLS // max(columns, 1))
    return (slice(start, start + size) for start in range(0, rows, size))


def cooccurrence_embedding(
    counts_CC: NDArray[np.float32], images: int, names: Sequence[str]
) -> NDArray[np.float32]:
    """Label embeddings float32 [C, 300] from the co-occurrence counts of ``images`` images.

    Labels that keep the same company get similar vectors. With the positive part of the
    normalised pointwise mutual information (Bouma, GSCL 2009)

        npmi_ij = log(p_ij / (p_i p_j)) / -log p_ij,   A = I + max(npmi, 0) / 2 off the diagonal,

    row i is sum_j A_ij r_j, scaled to length ``NORM``; r_j is the sign vector in {-1, 1}^300 that
    the SHA-3 hash of the name of label j gives. Such directions are nearly orthogonal, so inner
    products follow those of A (Achlioptas, PODS 2001), for any number of labels. Nothing is random
    or iterative: the order of the labels permutes the rows, and neither machine nor version
    changes them. The half keeps two labels apart that always come together.
    """
    signs_CE = np.stack([_signs(name) for name in names])
    embeddings_CE = np.concatenate(
        [
            _associated(counts_CC, rows, max(images, 1)) @ signs_CE
            for rows in _row_blocks(*counts_CC.shape)
        ]
    )
    return _of_length(embeddings_CE)


def _associated(counts_CC: NDArray[np.float32], rows: slice, images: int) -> NDArray[np.float64]:
    """These rows of I + max(npmi, 0) / 2."""
    p_RC = counts_CC[rows].astype(np.float64) / images
    p_C = counts_CC.diagonal().astype(np.float64) / images
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi_RC = np.log(p_RC / np.outer(p_C[rows], p_C)) / -np.log(p_RC)
    # not finite: never together, or together in every image; neither says anything
    associated_RC = np.where(np.isfinite(npmi_RC), np.clip(npmi_RC, 0, 1) / 2, 0)
    own = np.arange(len(associated_RC))
    associated_RC[own, own + rows.start] = 1
    return associated_RC


def random_embedding(names: Sequence[str], seed: int) -> NDArray[np.float32]:
    """Directions drawn for each name on its own, float32 [C, 300], of length ``NORM``."""
    rows = []
    for name in names:
        drawn = np.frombuffer(hashlib.sha256(f"{seed} {name}".encode()).digest(), "<u4")
        rows.append(np.random.default_rng(drawn.tolist()).standard_normal(WIDTH))
    return _of_length(np.stack(rows))


def _of_length(embeddings_CE: NDArray[np.float64]) -> NDArray[np.float32]:
    scale_C1 = NORM / np.linalg.norm(embeddings_CE, axis=1, keepdims=True)
    return np.asarray(embeddings_CE * scale_C1, np.float32)


def _signs(name: str) -> NDArray[np.float64]:
    bits = np.frombuffer(hashlib.shake_256(name.encode()).digest((WIDTH + 7) // 8), np.uint8)
    return np.unpackbits(bits)[:WIDTH].astype(np.float64) * 2 - 1


def _fill(names: Sequence[str], vectors: WordVectors, words: Path) -> NDArray[np.float32]:
    """Rows in the order of the labels; a label without a vector gets the mean of the others."""
    if not vectors.found:
        raise DataError(
            f"{words} has a vector for none of the {len(names)} labels ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}); give a file in the labels' language, or none"
        )
    mean_E = np.mean(list(vectors.found.values()), axis=0, dtype=np.float64)
    return np.stack([vectors.found.get(name, mean_E) for name in names]).astype(np.float32)


def _notes(vectors: WordVectors, words: Path) -> tuple[str, ...]:
    notes = []
    if vectors.averaged:
        spelled = ", ".join(f"{k} = {' + '.join(v)}" for k, v in vectors.averaged.items())
        notes.append(f"label vectors that are means over words of {words.name}: {spelled}")
    part = {k: v for k, v in vectors.incomplete.items() if k in vectors.found}
    if part:
        spelled = ", ".join(f"{k} without {' and '.join(v)}" for k, v in part.items())
        notes.append(f"label vectors from a part of their words of {words.name}: {spelled}")
    missing = [name for name in vectors.incomplete if name not in vectors.found]
    if missing:
        notes.append(
            f"labels without a vector in {words.name}, given the mean of the others: "
            + ", ".join(missing)
        )
    return tuple(notes)
