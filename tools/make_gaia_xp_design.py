#!/usr/bin/env python3
"""What Gaia XP makes of light, packed for ``spectrakit.gaia_xp``: the 110 coefficients from a spectrum, and fluxes and magnitudes from the coefficients.

    pip install gaiaxpy==2.1.5
    SPECTRAKIT_DATA=FOLDER make_gaia_xp_design.py          # writes spectrakit/assets/gaia_xp_design.safetensors

From coefficients: both maps are linear, so GaiaXPy's calibrated spectra and magnitudes of unit coefficients are their columns.
To coefficients: GaiaXPy's inverse bases, evaluated over all of each detector, say which spectrum each coefficient stands for. The coefficients of a
spectrum are those whose combination meets it within ERROR, and which are as small as the high orders of real stars (PRIOR, fitted to
gaia_xp.npz and printed anew). Arm by arm this is solvable even without a prior: condition numbers 8e2 (BP) and 5e4 (RP) against 6e14 of the 343-point design.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from gaiaxpy import PhotometricSystem, calibrate, generate
from gaiaxpy.calibrator.external_instrument_model import ExternalInstrumentModel
from gaiaxpy.config.paths import config_path
from gaiaxpy.core.satellite import BP_WL, RP_WL
from gaiaxpy.spectrum.sampled_basis_functions import SampledBasisFunctions
from scipy.optimize import least_squares

from spectrakit.gaia_xp import ASSET, BANDS, G_FLUX, N_BP, WAVE, black_body
from spectrakit.readers.local import find
from spectrakit.weights import save_tensors

MODELS = {"bp": ("v375wi", BP_WL), "rp": ("v142r", RP_WL)}            # GaiaXPy's default instrument models, and the wavelengths (nm) it trusts each arm at
GRID = np.arange(3110.0, 10991.0, 10.0)
FINE = np.arange(3110.0, 10990.1, 5.0)
ERROR = (0.003, 0.1)                                                  # inside: of the local signal plus the peak; outside: of the peak


def sources():
    """110 sources, each with one coefficient of 1 and the rest 0."""
    table = {"source_id": np.arange(2 * N_BP)}
    for arm, block in zip(MODELS, np.hsplit(np.eye(2 * N_BP), 2), strict=True):
        table |= {f"{arm}_coefficients": list(block), f"{arm}_coefficient_errors": [np.ones(N_BP)] * len(block), f"{arm}_standard_deviation": 1.0,
                  f"{arm}_coefficient_correlations": [np.eye(N_BP)] * len(block), f"{arm}_n_relevant_bases": N_BP, f"{arm}_n_parameters": N_BP}
    return pd.DataFrame(table)


def from_coefficients():
    """Design (343, 110), bands (3, 110), zero points (3,)."""
    spectra, _ = calibrate(sources(), sampling=WAVE / 10, truncation=False, save_file=False)
    photometry = generate(sources(), photometric_system=PhotometricSystem.Gaia_DR3_Vega, save_file=False)
    bands = np.stack([photometry[f"GaiaDr3Vega_flux_{band}"] for band in BANDS]).astype("f8")
    magnitudes = np.stack([photometry[f"GaiaDr3Vega_mag_{band}"] for band in BANDS]).astype("f8")
    return np.stack(spectra["flux"], 1), bands, np.nanmedian(magnitudes + 2.5 * np.log10(np.where(bands > 0, bands, np.nan)), 1)


def prior(coeff, bands, zero_point):
    """Scatter (110,) of coefficient / G flux about zero: two exponentials in the order, the second cut off; fitted to the brighter real stars."""
    magnitudes = zero_point - 2.5 * np.log10(np.where(coeff @ bands.T > 0, coeff @ bands.T, np.nan))
    used = (magnitudes[:, 0] < 13.5) & (np.abs(magnitudes[:, 1] - magnitudes[:, 2] - 1.05) < 0.75)
    scatter = 1.4826 * np.median(np.abs(coeff[used] / 10 ** (0.4 * (G_FLUX - magnitudes[used, :1]))), 0)
    j, result = np.arange(N_BP), []
    law = lambda p: np.logaddexp(p[0] - j / np.exp(p[1]), p[2] - j / np.exp(p[3]) - np.exp(p[4]) * np.maximum(j - 49, 0))     # noqa: E731
    for ln in np.split(np.log(scatter), 2):
        p = least_squares(lambda p, ln=ln: law(p) - ln, (-3.0, 0.0, -8.5, 3.0, -1.0), loss="soft_l1").x
        print("prior:", p.round(3), f"from {used.sum()} sources")
        result.append(np.exp(law(p)))
    return result


def inverse_bases(arm):
    """Of one arm, on FINE: flux per unit coefficient (m, 55), electrons per flux (m,), width of a wavelength step in pixels of the detector (m,)."""
    model = ExternalInstrumentModel.from_config_csv(*(f"{config_path}/{arm}C03_{MODELS[arm][0]}_{part}.csv" for part in ("dispersion", "response", "bases")))
    design = SampledBasisFunctions.from_external_instrument_model(FINE / 10, np.ones(FINE.size), model).get_design_matrix().T
    return design, np.maximum(model.get_response(FINE / 10), 0) * FINE, np.abs(np.gradient(model.wl_to_pwl(FINE / 10)))


def to_coefficients(arm, scatter, level):
    """Matrix (55, m) from fluxes at FINE to coefficients. ``level``: flux of a star of 5000 K per unit G flux."""
    bases, electrons, pixels = inverse_bases(arm)
    signal = level * electrons / pixels                                # electrons a pixel of the detector
    peak, (low, high) = signal.max(), (10.0 * MODELS[arm][1].low, 10.0 * MODELS[arm][1].high)
    error = np.where((FINE >= max(low, WAVE[0])) & (FINE <= high), ERROR[0] * (signal + peak), ERROR[1] * peak)
    weighted = bases * (electrons**2 / pixels / error**2)[:, None]
    print(f"{arm}: condition number of the inverse bases {np.linalg.cond(bases * (electrons / np.sqrt(pixels))[:, None]):.0f}")
    return np.linalg.solve(weighted.T @ bases + np.diag(1 / scatter**2), weighted.T)


def main():
    design, bands, zero_point = from_coefficients()
    scatter = prior(np.load(find("gaia_xp.npz"))["coeff"].astype("f8"), bands, zero_point)
    level = black_body(FINE)
    for _ in range(3):                                                 # the first rounds find the G flux of the black body
        blocks = [to_coefficients(arm, s, level) for arm, s in zip(MODELS, scatter, strict=True)]
        g = zero_point[0] - 2.5 * np.log10(bands[0] @ np.concatenate(blocks) @ level)
        level = level / 10 ** (0.4 * (G_FLUX - g))
    response = np.concatenate(blocks)[:, ::2] / (FINE[1] - FINE[0])
    tensors = {"design": design, "bands": bands, "zero_point": zero_point, "scatter": np.concatenate(scatter), "wave": GRID, "response": response.astype("f4")}
    save_tensors(ASSET, {k: torch.as_tensor(v) for k, v in tensors.items()},
                 {"origin": "GaiaXPy 2.1.5 (BSD 3-clause, (c) DPAC, CU5, DPCI), instrument models v375wi and v142r, no truncation"})
    print(f"-> {ASSET} ({Path(str(ASSET)).stat().st_size / 1e3:.0f} kB); zero points {zero_point.round(4)}")


if __name__ == "__main__":
    main()
