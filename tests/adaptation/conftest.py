"""What the tests of adapters share: a little flux, and simulated stars whose labels are off."""

import pytest
import torch


@pytest.fixture(autouse=True)
def small_matrices(single_thread):
    """All of these tests use them."""


@pytest.fixture(scope="session")
def flux():
    """Flux and mask of 8 made-up spectra."""
    generator = torch.Generator().manual_seed(0)
    return 1 - 0.3 * torch.rand(8, 1462, generator=generator) ** 4, torch.zeros(8, 1462, dtype=torch.bool)


@pytest.fixture(scope="session")
def stars(off_scale):
    """120 of them."""
    return off_scale(120)
