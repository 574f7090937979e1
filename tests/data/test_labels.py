from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbench.data import labels as module
from mlbench.data.labels import WIDTH, cooccurrence, cooccurrence_embedding, label_context
from mlbench.types import DataError, Index, Targets

targets = arrays.arrays(
    np.int8, st.tuples(st.integers(0, 30), st.integers(1, 8)), elements=st.sampled_from([-1, 0, 1])
)


def index(targets_NC: Targets) -> Index:
    keys = [str(i) for i in range(len(targets_NC))]
    return Index([Path(key) for key in keys], keys, targets_NC)


def random_targets(images: int = 200, labels: int = 6, seed: int = 0) -> Targets:
    rng = np.random.default_rng(seed)
    return (rng.random((images, labels)) < rng.uniform(0.1, 0.6, labels)).astype(np.int8)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# --------------------------------------------------------------------------------- co-occurrence
@given(targets)
def test_cooccurrence_counts_pairs(targets_NC: Targets) -> None:
    counts = cooccurrence(targets_NC)
    assert counts.dtype == np.float32
    labels = range(targets_NC.shape[1])
    for i in labels:
        for j in labels:
            assert counts[i, j] == sum(row[i] == 1 and row[j] == 1 for row in targets_NC)


def test_cooccurrence_is_the_same_in_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    targets_NC = random_targets()
    whole = cooccurrence(targets_NC)
    monkeypatch.setattr(module, "_ROWS", 7)
    assert np.array_equal(cooccurrence(targets_NC), whole)


# ------------------------------------------------------------------------------ derived embedding
@given(targets, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_derived_embedding_follows_the_order_of_the_labels(
    targets_NC: Targets, shuffle: st.DataObject
) -> None:
    names = [f"label {i}" for i in range(targets_NC.shape[1])]
    order = list(range(len(names)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    first = cooccurrence_embedding(cooccurrence(targets_NC), len(targets_NC), names)
    second = cooccurrence_embedding(
        cooccurrence(targets_NC[:, order]), len(targets_NC), [names[i] for i in order]
    )
    assert first.shape == (len(names), WIDTH)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.allclose(np.linalg.norm(first, axis=1), module.NORM, rtol=1e-5)
    assert np.allclose(second, first[order], atol=1e-5)


def test_derived_embedding_is_close_where_company_is_shared() -> None:
    rng = np.random.default_rng(0)
    outdoors = rng.random(2000) < 0.5
    columns = [(place & (rng.random(2000) < 0.6)) for place in (outdoors, ~outdoors) for _ in "abc"]
    context, _ = label_context(index(np.stack(columns, 1).astype(np.int8)), list("abcdef"))
    e = context.embeddings
    assert min(cosine(e[0], e[1]), cosine(e[4], e[5])) > 0.2 + max(
        cosine(e[0], e[4]), cosine(e[2], e[3])
    )


def test_labels_that_always_come_together_are_still_told_apart() -> None:
    targets_NC = random_targets(labels=3)
    targets_NC[:, 1] = targets_NC[:, 0]
    context, _ = label_context(index(targets_NC), list("abc"))
    assert cosine(context.embeddings[0], context.embeddings[1]) < 0.95


def test_derived_embedding_never_changes() -> None:
    counts = np.array([[4, 2, 0], [2, 3, 0], [0, 0, 0]], np.float32)
    embedding = cooccurrence_embedding(counts, 8, ["cat", "dog", "unseen"])
    a, b = 0.41144159, 0.37527767
    assert np.allclose(embedding[:, :4], [[a, -a, -a, -a], [a, -a, -a, -a], [b, -b, b, b]])


# ---------------------------------------------------------------------------------------- context
def test_context_without_words() -> None:
    targets_NC = random_targets(images=50)
    targets_NC[3] = -1
    context, notes = label_context(index(targets_NC), list("abcdef"))
    assert context.names == tuple("abcdef")
    assert context.images == 50
    assert np.array_equal(context.cooccurrence, cooccurrence(targets_NC))
    assert "co-occurrence" in notes[0]


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_names_that_do_not_fit_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError, match="width 2"):
        label_context(index(random_targets(labels=2)), names)


def test_context_with_words_notes_what_was_averaged_and_what_was_missing(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("cat 1 0\ntraffic 0 2\nlight 4 0\nhot 6 6\n")
    names = ["cat", "traffic light", "hot dog", "zebra"]
    context, notes = label_context(index(random_targets(labels=4)), names, file)
    assert context.embeddings.dtype == np.float32
    mean = np.mean([[1, 0], [2, 1], [6, 6]], axis=0)
    assert np.allclose(context.embeddings, [[1, 0], [2, 1], [6, 6], mean])
    text = "\n".join(notes)
    assert "traffic light = traffic + light" in text
    assert "hot dog without dog" in text
    assert "given the mean of the others: zebra" in text
    assert str(tmp_path) not in text


def test_words_that_know_no_label_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("chat 1 0\n")
    with pytest.raises(DataError, match="none of the 2 labels"):
        label_context(index(random_targets(labels=2)), ["cat", "dog"], file)
