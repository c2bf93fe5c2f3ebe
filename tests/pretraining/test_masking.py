"""What masked pretraining refuses: chunks without a place, and a loss over nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrakit.errors import MismatchError, SpectrumError
from spectrakit.models.spectrum_transformer import PRESETS, SpectrumTransformer, TransformerConfig

TINY = replace(PRESETS["tiny"], leak=True)


def spectra(n):
    return 1 + 0.2 * torch.randn(n, 1462, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return SpectrumTransformer(TINY, seed=0).eval()


@given(st.integers(1, 30), st.integers(1, 40), st.booleans())
def test_chunks_either_fit_or_are_refused(n_chunks, chunk, published):
    """They fit where the shortest part has as many tokens (as published: one more); then every part hides exactly one."""
    config = TransformerConfig(n_pix=177, window=8, stride=4, n_positions=60, d_model=4, n_layer=0, n_chunks=n_chunks, chunk=chunk, published_chunks=published)
    model, shortest = SpectrumTransformer(config, 0), min(len(part) for part in np.array_split(np.arange(config.n_tok), n_chunks))
    assert config.n_tok == 45
    if chunk + published <= shortest:
        assert (model.draw_chunks(5, torch.Generator().manual_seed(0)).sum(1) == n_chunks * chunk).all()
    else:
        with pytest.raises(MismatchError, match=f"A chunk of {chunk} tokens has no place in a part of {shortest}: there are 45 tokens in {n_chunks} parts"):
            model.draw_chunks(5, torch.Generator().manual_seed(0))


def test_chunks_that_do_not_fit_say_why():
    draw = lambda **o: SpectrumTransformer(replace(TINY, **o), 0).draw_chunks(1, torch.Generator().manual_seed(0))         # noqa: E731
    with pytest.raises(MismatchError, match="a part of 24: there are 147 tokens in 6 parts. Hide fewer or shorter chunks."):
        draw(chunk=25)
    with pytest.raises(MismatchError, match="in 6 parts, and the published starts need a part one token longer. Hide fewer or shorter chunks."):
        draw(chunk=24, published_chunks=True)
    assert draw(chunk=24).sum() == 144


def test_nothing_hidden_is_refused(model):
    """Without hidden tokens; and without leak with windows hidden that others show whole."""
    with pytest.raises(SpectrumError, match="Nothing that counts is hidden: 0 of 294 tokens are, and every number in them is zero or shown by"):
        model.masked_loss(spectra(2), torch.zeros(2, 147, dtype=torch.bool))
    hidden = torch.zeros(2, 147, dtype=torch.bool)
    hidden[1, 50] = True
    assert torch.isfinite(model.masked_loss(spectra(2), hidden))
    careful = SpectrumTransformer(replace(TINY, leak=False), 0)
    with pytest.raises(SpectrumError, match="Nothing that counts is hidden: 1 of 294 tokens are"):
        careful.masked_loss(spectra(2), hidden)


def test_loss_is_the_mean_of_the_errors(model):
    flux, hidden = spectra(2), model.draw_chunks(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        errors = model.masked_errors(flux, hidden)
        assert len(errors) == (hidden[:, 1:].sum() * 20 + hidden[:, 0].sum())
        torch.testing.assert_close(model.masked_loss(flux, hidden), errors.mean(), rtol=0, atol=0)
