from pathlib import Path

import numpy as np
import pytest

from mlbench.data.words import word_vectors
from mlbench.types import DataError
from tests.given import path_of


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
