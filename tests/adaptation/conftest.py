"""What the tests of adapters share: a little flux, and simulated stars whose labels are off."""

from dataclasses import replace

import pytest
import torch

import spectrakit as sk
from spectrakit.threads import one_thread


@pytest.fixture(autouse=True)
def small_matrices_need_no_threads():
    with one_thread():
        yield


@pytest.fixture(scope="session")
def flux():
    """Flux and mask of 8 made-up spectra."""
    generator = torch.Generator().manual_seed(0)
    return 1 - 0.3 * torch.rand(8, 1462, generator=generator) ** 4, torch.zeros(8, 1462, dtype=torch.bool)


@pytest.fixture(scope="session")
def stars():
    """120 simulated stars whose [Fe/H] scale is off by 0.4 dex: something that labels can teach."""
    spectra = sk.normalize(sk.simulate("miles", n=120, seed=5))
    labels = spectra.labels.copy()
    labels["feh"] = labels["feh"] + 0.4 * labels["feh"].unit
    return replace(spectra, labels=labels)
