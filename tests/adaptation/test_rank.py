"""Truncation against numpy's singular values: the best matrix of its rank, of the stored shapes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrakit.adaptation.rank import truncate, truncate_state
from spectrakit.errors import MismatchError


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.data())
def test_it_is_the_best_approximation_of_that_rank(r, n_in, n_out, data):
    rank, seed = data.draw(st.integers(0, r)), data.draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(r, n_in)), rng.normal(size=(n_out, r))
    a, b = truncate(torch.as_tensor(A), torch.as_tensor(B), rank)
    assert a.shape == A.shape and b.shape == B.shape
    U, S, Vh = np.linalg.svd(B @ A, full_matrices=False)
    best = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    np.testing.assert_allclose(b @ a, best, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(B @ A - (b @ a).numpy()), np.sqrt((S[rank:] ** 2).sum()), atol=1e-9)         # Eckart & Young
    if rank < r:
        assert not a[rank:].any() and not b[:, rank:].any()


def test_the_full_rank_gives_back_the_very_matrices():
    A, B = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.ones(4, 3)
    a, b = truncate(A, B, 3)
    assert a is A and b is B


def test_single_precision_is_kept():
    A, B = (torch.randn(s, generator=torch.Generator().manual_seed(1)) for s in ((8, 128), (256, 8)))
    a, b = truncate(A, B, 5)
    assert a.dtype == b.dtype == torch.float32
    lower, whole = (np.linalg.svd(m.double().numpy(), compute_uv=False)[:5] for m in (b @ a, B @ A))
    np.testing.assert_allclose(lower, whole, rtol=1e-5)


def test_only_the_placement_asked_for_and_nothing_that_is_stored():
    generator = torch.Generator().manual_seed(2)
    state = {f"net.lora_{m}.{name}.weight": torch.randn(s, generator=generator) for name in ("one", "two") for m, s in (("A", (4, 6)), ("B", (5, 4)))}
    before = {k: v.clone() for k, v in state.items()}
    lower = truncate_state(state, "two", 1)
    assert all(torch.equal(state[k], v) for k, v in before.items()) and lower["net.lora_A.one.weight"] is state["net.lora_A.one.weight"]
    assert torch.linalg.matrix_rank(lower["net.lora_B.two.weight"] @ lower["net.lora_A.two.weight"]) == 1


@pytest.mark.parametrize("rank", [-1, 5])
def test_a_rank_that_was_not_trained_says_to_train_again(rank):
    with pytest.raises(MismatchError, match=f"Rank {rank} of an adapter that was trained with rank 4; expected 0 to 4.*train again"):
        truncate(torch.zeros(4, 6), torch.zeros(5, 4), rank)
