"""Line spread, velocity and sampling: from the even ln(wave) grid of a library to the pixels of an instrument."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.fft import next_fast_len
from scipy.interpolate import BSpline
from torch import Tensor

from .errors import MismatchError
from .library import Library
from .surveys import C_KMS

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def broaden(flux: Float[Tensor, "n n_pix"], step: float, variance: Float[Tensor, " n"], shift: Float[Tensor, " n"],
            prefilter: bool = False) -> Float[Tensor, "n n_pix"]:
    """Convolve with a Gaussian of ``variance`` and move to the red by ``shift``, both in the units of the even grid's ``step``.

    Exact in Fourier space: the transform is multiplied by exp(-2 pi^2 variance f^2 - 2 pi i shift f). The spectrum is taken as periodic, so
    the outermost 4 sigma + |shift| are not to be used. ``prefilter`` returns the coefficients of ``sample`` in place of the values.
    """
    n_pix = flux.shape[1]
    padded = next_fast_len(n_pix, real=True)
    f = torch.fft.rfftfreq(padded, step, dtype=flux.dtype)
    ln_gain = -2 * torch.pi**2 * variance[:, None] * f.square()
    gain = torch.exp(ln_gain) / _spline_response(f * step) if prefilter else torch.exp(ln_gain)
    transform = torch.fft.rfft(torch.nn.functional.pad(flux, (0, padded - n_pix), mode="replicate"))
    return torch.fft.irfft(transform * (gain * _powers(-2 * torch.pi * shift * f[1], f.numel())), n=padded)[:, :n_pix]


def _powers(angle: Float[Tensor, " n"], n: int) -> Complex[Tensor, "n m"]:
    """exp(i k angle) for k < n: by rows of 64, because a product costs a tenth of a sine and a cosine."""
    k = torch.arange(64, dtype=angle.dtype)
    fine, coarse = (torch.polar(torch.ones_like(a), a) for a in (angle[:, None] * k, angle[:, None] * 64 * torch.arange(-(-n // 64), dtype=angle.dtype)))
    return (coarse[:, :, None] * fine[:, None]).reshape(len(angle), -1)[:, :n]


def _spline_response(f: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Transform of the cubic B-spline's values at the nodes: (2 + cos 2 pi f) / 3 (Unser 1999, IEEE Signal Processing Magazine 16(6), 22)."""
    return (2 + torch.cos(2 * torch.pi * f)) / 3


def sample(coefficients: Float[Tensor, "n n_pix"], position: Float[np.ndarray, " n_new"]) -> Float[Tensor, "n n_new"]:
    """The cubic B-spline with these coefficients, at positions counted in pixels: 4 products a pixel, and true to lines 3 pixels wide."""
    nodes = np.floor(position).astype(int) + np.arange(-1, 3)[:, None]
    weight = torch.as_tensor(BSpline.basis_element(np.arange(-2.0, 3.0))(position - nodes)).to(coefficients.dtype)
    nodes = torch.as_tensor(np.clip(nodes, 0, coefficients.shape[1] - 1))
    return sum(coefficients.index_select(1, node) * w for node, w in zip(nodes, weight, strict=True))


def spread(flux: Float[Tensor, "n n_pix"], library: Library, wave: Float[np.ndarray, " n_new"], resolution: Float[np.ndarray, " n_new"],
           scale: Float[Tensor, " n"], velocity: Float[Tensor, " n"]) -> Float[Tensor, "n n_new"]:
    """Library pixels -> an instrument's pixels ``wave`` (vacuum Angstrom): line spread of resolving power ``resolution``, its width times ``scale``,
    and velocity (km/s). Differentiable in flux, scale and velocity.

    Where the width changes along the spectrum, the result is interpolated (cubic, in the variance) between four constant widths; for MILES
    this is within 0.02 % of the continuum. A width a little below the library's own sharpens, as the scatter of APOGEE's asks for.

    Raises
    ------
    MismatchError
        The instrument is sharper than the library.
    """
    if resolution.max() > 1.001 * library.resolution:
        raise MismatchError(f"A resolving power of {resolution.max():.0f} is asked for; the library has {library.resolution:.0f} and can only be broadened.")
    step = float(torch.log(library.wave[1] / library.wave[0]))
    variance = (1.0 / resolution / FWHM) ** 2
    own = (1.0 / library.resolution / FWHM) ** 2
    shift = (velocity / C_KMS).to(flux.dtype)
    position = (np.log(wave) - float(torch.log(library.wave[0]))) / step
    at = lambda v: sample(broaden(flux, step, (scale.square() * v - own).to(flux.dtype), shift, prefilter=True), position)   # noqa: E731
    if np.ptp(variance) < 1e-6 * variance.max():
        return at(variance.min())
    nodes = np.linspace(variance.min(), variance.max(), 4)
    result = torch.zeros(len(flux), len(wave), dtype=flux.dtype)
    for i, node in enumerate(nodes):
        weight = np.prod([(variance - other) / (node - other) for other in np.delete(nodes, i)], axis=0)
        result = result + torch.as_tensor(weight).to(flux.dtype) * at(node)
    return result
