"""Search and recall against explicit loops, chance level, ties, and inputs that mean nothing."""

import numpy as np
import pytest

from spectrakit.errors import MismatchError, SpectrakitError
from spectrakit.retrieval import ranks, recall, search, similarity

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((40, 6)), RNG.standard_normal((40, 6))


def cosine(a, b):
    return float(sum(x * y for x, y in zip(a, b, strict=True)) / (sum(x * x for x in a) ** 0.5 * sum(y * y for y in b) ** 0.5))


def test_similarity_is_the_cosine():
    table = similarity(A[:5], B[:7])
    for i in range(5):
        for j in range(7):
            assert table[i, j] == pytest.approx(cosine(A[i], B[j]), abs=1e-12)


def test_search_finds_what_a_loop_finds():
    rows, value = search(A[:3], B, k=4)
    for i in range(3):
        order = sorted(range(40), key=lambda j: -cosine(A[i], B[j]))
        assert rows[i].tolist() == order[:4]
        np.testing.assert_allclose(value[i], [cosine(A[i], B[j]) for j in order[:4]], atol=1e-12)


def test_rank_counts_who_is_nearer_and_recall_the_ranks():
    place = ranks(A, B)
    for i in range(40):
        assert place[i] == 1 + sum(cosine(A[i], B[j]) > cosine(A[i], B[i]) for j in range(40))
    assert recall(A, B, 10) == np.mean(place <= 10)
    assert recall(A, 3 * A) == 1.0


def test_chance_is_k_over_n():
    big, other = RNG.standard_normal((2, 1000, 8))
    assert recall(big, other, 100) == pytest.approx(0.1, abs=0.03)


def test_a_constant_embedding_finds_nothing():
    assert recall(np.ones((50, 3)), np.ones((50, 3)), 10) == 0


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: similarity(A, B[:, :3]), MismatchError, "Queries have 6 numbers each, the base 3; embed both with one model."),
    (lambda: similarity(A * 0, B), SpectrakitError, "40 embeddings are zero or NaN; leave these spectra out."),
    (lambda: similarity(A, np.where(B > 2, np.nan, B)), SpectrakitError, "embeddings are zero or NaN"),
    (lambda: search(A, B, 41), SpectrakitError, "k = 41 asked for; the base holds 40 spectra."),
    (lambda: search(A, B, 0), SpectrakitError, "k = 0 asked for"),
    (lambda: recall(A[:3], B), MismatchError, "3 queries and 40 spectra in the base; row i of both has to be the same star."),
])
def test_nonsense_is_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
