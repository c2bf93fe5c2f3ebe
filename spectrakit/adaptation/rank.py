"""The rank of a trained adapter, lowered afterwards: singular-value truncation of its update B A."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import MismatchError


def truncate(A: Float[Tensor, "r n_in"], B: Float[Tensor, "n_out r"], rank: int) -> tuple[Float[Tensor, "r n_in"], Float[Tensor, "n_out r"]]:
    """The best approximation of B A by a matrix of ``rank``, as two matrices of the shapes of A and B; rows and columns beyond it are 0.

    No matrix is closer in the Frobenius or the spectral norm (Eckart & Young 1936). The singular values are those of a matrix of r x r, after QR of both
    factors, so that it costs next to nothing. At the full rank A and B come back as they are.

    Raises
    ------
    MismatchError
        A rank below 0, or above the stored one.
    """
    stored = len(A)
    if not 0 <= rank <= stored:
        raise MismatchError(f"Rank {rank} of an adapter that was trained with rank {stored}; expected 0 to {stored}. What was not trained cannot be switched on: "
                            "for a higher rank train again, sk.adapt(..., placement=(replace(PLACEMENTS[name], rank=...),)).")
    if rank == stored:
        return A, B
    (Qb, Rb), (Qa, Ra) = torch.linalg.qr(B.double()), torch.linalg.qr(A.double().T)
    U, S, Vh = torch.linalg.svd(Rb @ Ra.T, full_matrices=False)
    k = min(rank, len(S))                                                        # a Linear with one output has one singular value
    root = S[:k].sqrt()
    left, right = torch.zeros_like(B), torch.zeros_like(A)
    left[:, :k], right[:k] = Qb @ (U[:, :k] * root), (root[:, None] * Vh[:k]) @ Qa.T
    return right, left


def truncate_state(values: dict[str, Tensor], name: str, rank: int) -> dict[str, Tensor]:
    """A member's weights with every B A of the placement ``name`` truncated; the ones given stay as they are."""
    values = dict(values)
    for key in [k for k in values if k.endswith(f".lora_A.{name}.weight")]:
        other = key.replace(".lora_A.", ".lora_B.")
        values[key], values[other] = truncate(values[key], values[other], rank)
    return values
