"""The label context: co-occurrence graph and word vectors, known before training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlbench.text import shorten
from mlbench.types import (
    WORD_WIDTH,
    DataError,
    Graph,
    Index,
    LabelContext,
    ObjectCounts,
    Targets,
    stream,
    unknown_objects,
)

if TYPE_CHECKING:
    from mlbench.data.words import WordVectors

NORM = 6.5
"""Length of derived and random embeddings: that of GloVe vectors of label names."""

Counts = NDArray[np.float32]


def label_context(
    index: Index,
    names: Sequence[str],
    words: Path | str = "cooccurrence",
    graph: Graph = "cooccurrence",
    seed: int = 0,
    objects: Callable[[Index], ObjectCounts] = unknown_objects,
) -> tuple[LabelContext, tuple[str, ...]]:
    """Make the label context of a training split, and notes on it for the record.

    Args:
        index: the TRAIN split; labels of the test split must never come in here.
        names: the C labels.
        words: a file of word vectors (see ``mlbench.data.words``); ``cooccurrence`` derives the
            embeddings from the true co-occurrence for every graph; ``random`` draws them.
        graph: what replaces the counts (see ``graph_counts``).
        seed: seed of all random draws.
        objects: counts the objects of each label in the images of ``index``, at a head's request.

    Raises:
        DataError: the names do not fit the targets, or the file is missing, malformed, or has
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
    embeddings: Any
    if isinstance(words, Path):
        from mlbench.data.words import word_vectors

        vectors = word_vectors(names, words)
        embeddings = _fill(names, vectors, words)
        notes = _notes(vectors, words)
    elif words == "random":
        embeddings = partial(random_embedding, names, seed)
        notes = (f"label embeddings drawn at random with seed {seed}",)
    else:
        embeddings = partial(cooccurrence_embedding, counts_CC, len(index), names)
        notes = ("label embeddings derived from the co-occurrence of the training labels",)
    if graph != "cooccurrence":
        counts_CC = graph_counts(graph, counts_CC, seed)
        drawn = f", drawn with seed {seed}" if graph == "random" else ""
        notes += (f"label graph: {graph}{drawn}",)
    return LabelContext(names, counts_CC, embeddings, len(index), partial(objects, index)), notes


# --------------------------------------------------------------------------------------- the graph
def cooccurrence(targets_NC: Targets) -> Counts:
    """float32 [C, C]: the number of images in which two labels are both present; exact to 2**24.

    The diagonal counts the positives of each label; an unknown label is not a positive.
    """
    from scipy.sparse import csr_array

    present_NC = csr_array(targets_NC == 1, dtype=np.float32)
    counts_CC: Counts = (present_NC.T @ present_NC).toarray()
    return counts_CC


def graph_counts(graph: Graph, counts_CC: Counts, seed: int) -> Counts:
    """The counts float32 [C, C] from which heads build their label graph.

    How a head processes the counts (thresholds, normalisation) is up to the method; this changes
    the counts themselves, for all methods alike. The diagonal stays.

    ``identity`` removes all links between labels; ``random`` deals their strengths out anew, by the
    seed, among the pairs of labels that have positives. A strength is n_ij / min(n_i, n_j), so that
    the counts stay possible: symmetric, with as many links, and at most a label's positives.
    """
    positives_C = counts_CC.diagonal()
    dealt_CC: Counts = np.diag(positives_C)
    if graph == "identity":
        return dealt_CC
    rows, columns = np.nonzero(np.triu(counts_CC, k=1))
    strengths = counts_CC[rows, columns] / np.minimum(positives_C[rows], positives_C[columns])
    seen = np.flatnonzero(positives_C)
    first, second = _draw_pairs(len(seen), len(strengths), seed)
    rows, columns = seen[first], seen[second]
    largest = np.minimum(positives_C[rows], positives_C[columns])
    dealt_CC[rows, columns] = np.maximum(np.rint(strengths * largest), 1)
    dealt_CC[columns, rows] = dealt_CC[rows, columns]
    return dealt_CC


def _draw_pairs(count: int, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``size`` different pairs i < j below ``count``, in random order."""
    i = np.arange(count, dtype=np.int64)
    starts = i * (count - 1) - i * (i - 1) // 2  # the number of the pair (i, i + 1)
    total = count * (count - 1) // 2
    rng = stream("graph", seed)
    drawn = rng.choice(total, size, replace=False) if size else i[:0]
    first = np.searchsorted(starts[:-1], drawn, side="right") - 1
    return first, drawn - starts[first] + first + 1


# ---------------------------------------------------------------------------------- the embeddings
def cooccurrence_embedding(
    counts_CC: Counts, images: int, names: Sequence[str]
) -> NDArray[np.float32]:
    """Label embeddings float32 [C, 300] from the co-occurrence counts of ``images`` images.

    Labels that occur in the same company get similar vectors. With the positive part of the
    normalised pointwise mutual information (Bouma, GSCL 2009)

        npmi_ij = log(p_ij / (p_i p_j)) / -log p_ij,   A = I + max(npmi, 0) / 2 off the diagonal,

    row i is sum_j A_ij r_j, scaled to length ``NORM``; r_j is the sign vector in {-1, 1}^300 that
    the SHA-3 hash of the name of label j gives. Such directions are nearly orthogonal, so inner
    products follow those of A (Achlioptas, PODS 2001), for any number of labels. Nothing is random
    or iterative: the order of the labels permutes the rows, and neither machine nor version
    changes them. The factor 1/2 keeps labels apart that always occur together.
    """
    i, j = np.nonzero(counts_CC)
    counted, most = (counts_CC[i, j], counts_CC.diagonal()), max(images, 1)
    p_ij, p_C = (found.astype(np.float64) / most for found in counted)
    with np.errstate(invalid="ignore"):
        npmi_ij = np.log(p_ij / (p_C[i] * p_C[j])) / -np.log(p_ij)
    associated_CC = np.eye(len(names))
    # not a number: together in every image, which says as little as never
    associated_CC[i, j] = np.where(i == j, 1, np.clip(np.nan_to_num(npmi_ij), 0, 1) / 2)
    hashed = [hashlib.shake_256(name.encode()).digest((WORD_WIDTH + 7) // 8) for name in names]
    hashes_CB = np.frombuffer(b"".join(hashed), np.uint8).reshape(len(names), -1)
    bits_CE = np.unpackbits(hashes_CB, axis=1, count=WORD_WIDTH)
    return _of_length(associated_CC @ (bits_CE.astype(np.float64) * 2 - 1))


def random_embedding(names: Sequence[str], seed: int) -> NDArray[np.float32]:
    """Random vectors float32 [C, 300] of length ``NORM``, drawn by seed and name."""
    rows = []
    for name in names:
        drawn = np.frombuffer(hashlib.sha256(f"{seed} {name}".encode()).digest(), "<u4")
        rows.append(np.random.default_rng(drawn.tolist()).standard_normal(WORD_WIDTH))
    return _of_length(np.stack(rows))


def _of_length(embeddings_CE: NDArray[np.float64]) -> NDArray[np.float32]:
    scale_C1 = NORM / np.linalg.norm(embeddings_CE, axis=1, keepdims=True)
    return np.asarray(embeddings_CE * scale_C1, np.float32)


def _fill(names: Sequence[str], vectors: WordVectors, words: Path) -> NDArray[np.float32]:
    """Rows in the order of the labels; a label without a vector gets the mean of the others."""
    if not vectors.found:
        raise DataError(
            f"{words} has a vector for none of the {len(names)} labels ({shorten(names)}); give a "
            "file in the labels' language, or none"
        )
    mean_E = np.mean(list(vectors.found.values()), axis=0, dtype=np.float64)
    return np.stack([vectors.found.get(name, mean_E) for name in names]).astype(np.float32)


def _notes(vectors: WordVectors, words: Path) -> tuple[str, ...]:
    notes = [f"label vectors of {words.name}: {vectors.about}"] if vectors.about else []
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
