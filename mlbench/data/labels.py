"""What is known about the labels before any image is seen: their graph and their word vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench.data.words import WordVectors, word_vectors
from mlbench.types import DataError, Index, LabelContext, Targets

WIDTH = 300
"""Width of the embedding that is derived from the co-occurrence, and of GloVe's usual vectors."""
NORM = 6.5
"""Length of its rows: what GloVe's vectors of label names have, so that heads start alike."""
_ROWS = 16_384


def label_context(
    index: Index, names: Sequence[str], words: Path | None = None
) -> tuple[LabelContext, tuple[str, ...]]:
    """The label context of a training split, and notes for the record on how it was made.

    Args:
        index: the TRAIN split; labels of the test split must never come in here.
        names: the C labels, the columns of its targets.
        words: a file of word vectors (see ``mlbench.data.words``); None derives the embeddings
            from the co-occurrence (see ``cooccurrence_embedding``).

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
    if words is None:
        embeddings_CE = cooccurrence_embedding(counts_CC, len(index), names)
        notes: tuple[str, ...] = (
            "label embeddings derived from the co-occurrence of the training labels",
        )
    else:
        vectors = word_vectors(names, words)
        embeddings_CE = _fill(names, vectors, words)
        notes = _notes(vectors, words)
    return LabelContext(names, counts_CC, embeddings_CE, len(index)), notes


def cooccurrence(targets_NC: Targets) -> NDArray[np.float32]:
    """float32 [C, C]: in how many images two labels are both present; exact up to 2**24.

    The diagonal counts each label's positives; an unknown label is not a positive.
    """
    count_CC = np.zeros((targets_NC.shape[1],) * 2)
    for start in range(0, len(targets_NC), _ROWS):  # bounds the memory of the float copy
        present_NC = (targets_NC[start : start + _ROWS] == 1).astype(np.float32)
        count_CC += present_NC.T @ present_NC
    return count_CC.astype(np.float32)


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
    p_CC = counts_CC.astype(np.float64) / max(images, 1)
    p_C = p_CC.diagonal()
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi_CC = np.log(p_CC / np.outer(p_C, p_C)) / -np.log(p_CC)
    # not finite: never together, or together in every image; neither says anything
    associated_CC = np.where(np.isfinite(npmi_CC), np.clip(npmi_CC, 0, 1) / 2, 0)
    np.fill_diagonal(associated_CC, 1)
    embeddings_CE = associated_CC @ np.stack([_signs(name) for name in names])
    embeddings_CE *= NORM / np.linalg.norm(embeddings_CE, axis=1, keepdims=True)
    return np.asarray(embeddings_CE, np.float32)


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
