"""What heads are told of the labels: counts, graphs and word vectors."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbench.data import labels as module
from mlbench.data.labels import (
    WORD_WIDTH,
    cooccurrence,
    cooccurrence_embedding,
    graph_counts,
    label_context,
    random_embedding,
)
from mlbench.data.words import word_vectors
from mlbench.types import DataError
from tests.data.test_noise import index
from tests.given import path_of

targets = arrays.arrays(
    np.int8, st.tuples(st.integers(0, 30), st.integers(1, 8)), elements=st.sampled_from([-1, 0, 1])
)


def random_targets(images=200, labels=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((images, labels)) < rng.uniform(0.1, 0.6, labels)).astype(np.int8)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@given(targets)
def test_cooccurrence_counts_pairs(targets_NC):
    counts = cooccurrence(targets_NC)
    assert counts.dtype == np.float32
    labels = range(targets_NC.shape[1])
    for i in labels:
        for j in labels:
            assert counts[i, j] == sum(row[i] == 1 and row[j] == 1 for row in targets_NC)


@given(targets, st.randoms(use_true_random=False))
def test_derived_embedding_follows_the_order_of_the_labels(targets_NC, shuffle):
    names = [f"label {i}" for i in range(targets_NC.shape[1])]
    order = list(range(len(names)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    first = cooccurrence_embedding(cooccurrence(targets_NC), len(targets_NC), names)
    second = cooccurrence_embedding(
        cooccurrence(targets_NC[:, order]), len(targets_NC), [names[i] for i in order]
    )
    assert first.shape == (len(names), WORD_WIDTH)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.allclose(np.linalg.norm(first, axis=1), module.NORM, rtol=1e-5)
    assert np.allclose(second, first[order], atol=1e-5)


def test_derived_embedding_is_close_where_company_is_shared():
    rng = np.random.default_rng(0)
    outdoors = rng.random(2000) < 0.5
    columns = [(place & (rng.random(2000) < 0.6)) for place in (outdoors, ~outdoors) for _ in "abc"]
    context, _ = label_context(index(np.stack(columns, 1).astype(np.int8)), list("abcdef"))
    e = context.embeddings
    assert min(cosine(e[0], e[1]), cosine(e[4], e[5])) > 0.2 + max(
        cosine(e[0], e[4]), cosine(e[2], e[3])
    )


def test_derived_embedding_never_changes():
    counts = np.array([[4, 2, 0], [2, 3, 0], [0, 0, 0]], np.float32)
    embedding = cooccurrence_embedding(counts, 8, ["cat", "dog", "unseen"])
    a, b = 0.41144159, 0.37527767
    assert np.allclose(embedding[:, :4], [[a, -a, -a, -a], [a, -a, -a, -a], [b, -b, b, b]])


def test_word_vectors_are_made_when_they_are_first_read():
    context, _ = label_context(index(random_targets()), list("abcdef"))
    assert context.word_width == WORD_WIDTH and "embeddings" not in vars(context)
    assert context.embeddings is context.embeddings


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_names_that_do_not_fit_are_refused(names):
    with pytest.raises(DataError, match="width 2"):
        label_context(index(random_targets(labels=2)), names)


def test_context_with_words_notes_what_was_averaged_and_what_was_missing(tmp_path):
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


def test_words_that_know_no_label_are_refused(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("chat 1 0\n")
    with pytest.raises(DataError, match="none of the 2 labels"):
        label_context(index(random_targets(labels=2)), ["cat", "dog"], file)


def test_random_embeddings_look_like_derived_ones_and_follow_seed_and_name():
    names = [f"label {i}" for i in range(50)]
    one, other = random_embedding(names, 0), random_embedding(names, 1)
    assert one.dtype == np.float32 and one.shape == (50, WORD_WIDTH)
    assert np.allclose(np.linalg.norm(one, axis=1), module.NORM, rtol=1e-5)
    assert max(abs(cosine(a, b)) for a, b in zip(one, other, strict=True)) < 0.3
    assert max(abs(cosine(one[i], one[j])) for i in range(50) for j in range(i)) < 0.3
    assert np.array_equal(random_embedding(names[::-1], 0), one[::-1])


def test_words_and_graph_are_ablated_apart():
    split, names = index(random_targets()), list("abcdef")
    plain, _ = label_context(split, names)
    lone, notes = label_context(split, names, graph="identity")
    assert np.array_equal(lone.cooccurrence, np.diag(plain.positives))
    assert np.array_equal(lone.embeddings, plain.embeddings), "of the true co-occurrence"
    assert "label graph: identity" in notes
    drawn, notes = label_context(split, names, "random", graph="random", seed=3)
    assert np.array_equal(drawn.embeddings, random_embedding(names, 3))
    assert np.array_equal(drawn.positives, plain.positives)
    assert not np.array_equal(drawn.cooccurrence, plain.cooccurrence)
    assert all("seed 3" in note for note in notes) and len(notes) == 2


def off_diagonal(counts):
    return counts[~np.eye(len(counts), dtype=bool)]


@given(targets, st.integers(0, 5))
def test_a_random_graph_is_one_that_could_have_been_counted(targets_NC, seed):
    counts = cooccurrence(targets_NC)
    drawn = graph_counts("random", counts, seed)
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn, drawn.T)
    assert np.array_equal(drawn.diagonal(), counts.diagonal())
    positives = counts.diagonal()
    assert (drawn <= np.minimum(positives, positives[:, None])).all()
    assert (drawn > 0).sum() == (counts > 0).sum(), "as many links as before"
    assert np.array_equal(drawn, graph_counts("random", counts, seed))


def test_a_random_graph_links_other_pairs_as_strongly():
    rng = np.random.default_rng(0)
    present = rng.random((5000, 40)) < rng.uniform(0.02, 0.4, 40)
    present[:, 1] |= present[:, 0]
    counts = cooccurrence(present.astype(np.int8))
    one, other = (graph_counts("random", counts, seed) for seed in (0, 1))
    assert not np.array_equal(one, counts) and not np.array_equal(one, other)
    least = np.minimum(counts.diagonal(), counts.diagonal()[:, None])
    strengths = (np.sort(off_diagonal(each / least)) for each in (counts, one))
    assert np.allclose(*strengths, atol=0.01)


def test_in_random_graphs_every_pair_is_linked_as_often():
    counts = np.diag(np.full(5, 10, np.float32))
    counts[0, 1] = counts[1, 0] = 4
    found = sum(graph_counts("random", counts, seed) == 4 for seed in range(2000))
    assert np.array_equal(found, found.T) and found.diagonal().sum() == 0
    assert off_diagonal(found).min() > 140 and off_diagonal(found).max() < 260, "200 expected"


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text(
        "the 9 9 9\ncat 1 2 3\nt-shirt 4 5 6\nhotdog 7 7 7\nhot 1 0 0\ndog 0 1 0\n"
        "dining 2 0 0\ntable 0 0 2\n. . . 8 8 8\ncafé 0.5 -1e-3 2\n"
    )
    return file


def npz(file, **groups):
    np.savez(file, **{k.replace("__", "/"): np.asarray(v) for k, v in groups.items()})
    return file


def test_text_is_looked_up_by_word(text):
    words = word_vectors(["cat", "T-shirt", "hot dog", "Hot_Dog", "diningtable", "café"], text)
    assert {k: v.tolist() for k, v in words.found.items()} == {
        "cat": [1, 2, 3],
        "T-shirt": [4, 5, 6],
        "hot dog": [0.5, 0.5, 0],
        "Hot_Dog": [0.5, 0.5, 0],
        "diningtable": [1, 0, 1],
        "café": pytest.approx([0.5, -1e-3, 2]),
    }
    assert words.averaged["diningtable"] == ("dining", "table")
    assert "T-shirt" not in words.averaged
    assert not words.incomplete


def test_labels_without_a_vector_are_told(text):
    words = word_vectors(["zebra", "hot zebra"], text)
    assert "zebra" not in words.found
    assert words.found["hot zebra"].tolist() == [1, 0, 0]
    assert words.incomplete == {"zebra": ("zebra",), "hot zebra": ("zebra",)}


@pytest.mark.parametrize("start", ["2 3\ncat 1 2 3\n", "\ufeff2 3\n", "\ufeff"])
def test_a_header_of_word2vec_and_a_mark_are_skipped(tmp_path, start):
    file = tmp_path / "vectors.vec"
    file.write_text(f"{start}dog 4 5 6 \n", encoding="utf-8")
    assert word_vectors(["dog"], file).found["dog"].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat 1 2 3\ndog 1 2\n", "line 2: 2 numbers instead of 3"),
        ("cat 1 2 3\n\ndog 1 two 3\n", "line 3: .*two"),
        ("cat 1 2 3\ndog 1 nan 3\n", "line 2: .*not finite"),
        ("", "holds no word vectors"),
    ],
)
def test_a_malformed_text_names_its_line(tmp_path, content, message):
    file = tmp_path / "bad.txt"
    file.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        word_vectors(["cat", "dog"], file)
    assert "bad.txt" in str(error.value)


def test_npz_matches_by_name_in_all_its_sets(tmp_path):
    sets = {"a__names": ["tv-monitor", "Cat"], "a__vectors": [[1.0, 2], [3, 4]]}
    sets |= {"b__names": ["traffic light", "hot", "dog"]}
    file = npz(tmp_path / "words.npz", **sets, b__vectors=[[5.0, 6], [7, 8], [9, 10]])
    names = ["hot dog", "trafficlight", "cat", "tvmonitor"]
    words = word_vectors(names, file)
    assert [words.found[name].tolist() for name in names] == [[8, 9], [5, 6], [3, 4], [1, 2]]
    assert dict(words.averaged) == {"hot dog": ("hot", "dog")}


def test_of_sets_that_disagree_the_one_that_knows_most_labels_counts(tmp_path):
    sets = {"a__names": ["cat", "x"], "a__vectors": [[1.0], [1]]}
    sets |= {"b__names": ["dog", "cat"], "b__vectors": [[2.0], [2]]}
    file = npz(tmp_path / "words.npz", **sets)
    assert word_vectors(["cat", "dog"], file).found["cat"].tolist() == [2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"names": ["a"]}, "'names' but not 'vectors'"),
        ({"embedding": [[1.0]]}, "it has embedding"),
        ({"names": ["a", "b"], "vectors": [[1.0]]}, r"floats \[2, E\]"),
        ({"names": ["a", "b"], "vectors": [[1.0], [np.inf]]}, r"row 1 \(b\) is not finite"),
    ],
)
def test_a_malformed_npz_names_its_array(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message) as error:
        word_vectors(["a", "b"], npz(tmp_path / "bad.npz", **arrays))
    assert "bad.npz" in str(error.value)


def test_a_missing_broken_or_pickled_npz_is_refused(tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 and then nothing")
    pickled = npz(tmp_path / "pickled.npz", names=np.array(["a"], object), vectors=[[1.0]])
    for file in (tmp_path / "absent.npz", broken, pickled):
        with pytest.raises(DataError, match=file.name):
            word_vectors(["a"], file)


def test_published_label_vectors_cover_voc_and_coco():
    named = path_of("WORDS", "label_words.npz")
    from mlbench_plugins.datasets.voc import VOC2007

    with np.load(named) as arrays:
        coco = dict(zip(arrays["coco/names"].tolist(), arrays["coco/vectors"], strict=True))
    for names in (VOC2007.names, tuple(reversed(coco))):
        words = word_vectors(names, Path(named))
        assert set(words.found) == set(names)
        assert not words.averaged
        assert not words.incomplete
    assert all(np.array_equal(words.found[name], coco[name]) for name in coco)
