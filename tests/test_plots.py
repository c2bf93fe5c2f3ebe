"""Figures render, carry units, and show what they are given."""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

import spectrakit as sk


@pytest.fixture(autouse=True)
def closed():
    with plt.rc_context():
        yield
    plt.close("all")


def drawn(ax) -> bytes:
    from io import BytesIO
    stream = BytesIO()
    ax.figure.savefig(stream, format="svg")
    return stream.getvalue()


def test_spectra_have_units_names_of_lines_and_gaps_at_masked_pixels():
    stars = sk.normalize(sk.simulate("lamost_lrs", n=3, seed=0))
    stars.mask[1, 100:120] = True
    ax = sk.plots.spectra(stars, [0, 1])
    assert "Å" in ax.get_xlabel() and any("Mg b" in t.get_text() for t in ax.texts) and len(drawn(ax)) > 10_000
    assert np.isnan(ax.lines[1].get_ydata()[100:120]).all()


def test_predictions_and_residuals_state_unit_and_counts():
    rng = np.random.default_rng(0)
    feh = rng.uniform(-2, 0.4, 60)
    ax = sk.plots.predictions(feh, feh + 0.1, "feh", sigma=np.full(60, 0.1))
    assert "[dex]" in ax.get_xlabel() and len(drawn(ax)) > 5_000
    ax = sk.plots.residuals(feh, rng.normal(0, 0.1, 60), name="x")
    counts = sum(int(t.get_text().split("=")[1]) for t in ax.texts)
    assert counts == ((feh >= -3.5) & (feh < 0.5)).sum() and len(drawn(ax)) > 5_000


def test_words_say_titles_axes_and_names():
    fig, axes = plt.subplots(1, 2)
    axes[0].plot([1, 2], label=r"$T_{\rm eff}$")
    axes[0].set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum", title="Lines")
    axes[1].set_title("gaia_xp")
    assert sk.plots.words(fig) == "Figure. Lines; flux / continuum against wavelength in vacuum [Å]; shown: T eff. gaia_xp"
