import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbench.data.graphs import label_graph
from mlbench.data.labels import cooccurrence

targets = arrays.arrays(
    np.int8, st.tuples(st.integers(0, 30), st.integers(1, 9)), elements=st.sampled_from([-1, 0, 1])
)


def off_diagonal(counts):
    return counts[~np.eye(len(counts), dtype=bool)]


@given(targets, st.integers(0, 5))
@settings(deadline=None)
def test_a_random_graph_is_one_that_could_have_been_counted(targets_NC, seed):
    counts = cooccurrence(targets_NC)
    drawn = label_graph("random", counts, seed)
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn, drawn.T)
    assert np.array_equal(drawn.diagonal(), counts.diagonal())
    positives = counts.diagonal()
    assert (drawn <= np.minimum(positives, positives[:, None])).all()
    assert (drawn > 0).sum() == (counts > 0).sum(), "as many links as before"
    assert np.array_equal(drawn, label_graph("random", counts, seed))


def test_a_random_graph_links_other_pairs_as_strongly():
    rng = np.random.default_rng(0)
    present = rng.random((5000, 40)) < rng.uniform(0.02, 0.4, 40)
    present[:, 1] |= present[:, 0]
    counts = cooccurrence(present.astype(np.int8))
    one, other = (label_graph("random", counts, seed) for seed in (0, 1))
    assert not np.array_equal(one, counts) and not np.array_equal(one, other)
    least = np.minimum(counts.diagonal(), counts.diagonal()[:, None])
    strengths = (np.sort(off_diagonal(each / least)) for each in (counts, one))
    assert np.allclose(*strengths, atol=0.01)


def test_in_random_graphs_every_pair_is_linked_as_often():
    counts = np.diag(np.full(5, 10, np.float32))
    counts[0, 1] = counts[1, 0] = 4
    found = sum(label_graph("random", counts, seed) == 4 for seed in range(2000))
    assert np.array_equal(found, found.T) and found.diagonal().sum() == 0
    assert off_diagonal(found).min() > 140 and off_diagonal(found).max() < 260, "200 expected"


def test_the_identity_links_nothing():
    counts = np.array([[4, 2, 0], [2, 3, 0], [0, 0, 0]], np.float32)
    assert np.array_equal(label_graph("identity", counts, 0), np.diag([4, 3, 0]))
    assert np.array_equal(label_graph("cooccurrence", counts, 7), counts)
