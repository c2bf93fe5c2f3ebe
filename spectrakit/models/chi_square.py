"""Chi-square of the library against a block of stars: model, continuum, constraints, weights, slope and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.fft import next_fast_len
from torch import Tensor

from ..errors import MismatchError
from ..library import Library
from ..line_spread import spread
from ..spectra import SpectraSet, to_vacuum
from ..surveys import C_KMS

UNIT = (1000.0, 1.0, 1.0, 1.0, 1.0, 100.0)   # the optimiser's units of teff, logg, feh, alpha_fe, c_fe, velocity: numbers of order one
STEP = (0.02, 0.02, 0.02, 0.02, 0.02, 0.02)  # of the central differences, in these units: far above float32 rounding, far below curvature
WALL = 0.005                                 # a label this far beyond the hull (1000 K or dex) costs one unit of chi-square
REACH = 200.0                                # km/s that the velocity may move from its start: the capture range is about one line width
START_ERROR = 0.03                           # relative error of the model while starting points are compared
TAIL = 4.0                                   # degrees of freedom of the Student distribution that judges bad pixels
LAGS = 8                                     # pixels over which residuals may correlate: 4 (1462 / 100)^(2/9), Newey & West 1994


@dataclass(frozen=True, eq=False)
class Instrument:
    """What all stars of a set share: the way from parameters (in ``UNIT``) to pixels, and the walls and priors around the parameters."""

    library: Library
    part: slice
    wave: Float[np.ndarray, " n_pix"]
    resolution: Float[np.ndarray, " n_pix"]
    basis: Float[Tensor, "k n_pix"]
    walls: Float[Tensor, "m 7"]
    spreads: tuple[float, float]
    lines: float
    floor: float

    @classmethod
    def of(cls, stars: SpectraSet, library: Library, degree: int, velocities: Sequence[float | int], **stated) -> Instrument:
        if stars.normalization == "none":
            raise MismatchError("These spectra are not continuum normalised (normalization='none'); normalise them first.")
        if stars.resolution.max() >= library.resolution:
            raise MismatchError(f"The spectra have a resolving power of up to {stars.resolution.max():.0f}, the library {library.resolution:.0f}; "
                                "it can only be broadened.")
        wave, fastest = to_vacuum(stars.wave, stars.medium), max(abs(v) for v in velocities) + REACH
        # the spectrum counts as periodic when it is broadened: 4 sigma at each end, and what the velocity brings in, are not to be used
        margin = 1 + fastest / C_KMS + 4 / 2.35 / stars.resolution.min()
        low, high = float(library.wave[0]) * margin, float(library.wave[-1]) / margin
        if wave[0] < low or wave[-1] > high:
            raise MismatchError(f"The spectra cover {wave[0]:.1f}-{wave[-1]:.1f} A (vacuum), the library allows for {low:.1f}-{high:.1f} A at "
                                "this resolution and these velocities; cut the spectra.")
        t = 2 * (wave - wave[0]) / (wave[-1] - wave[0]) - 1
        basis = torch.as_tensor(np.polynomial.legendre.legvander(t, degree).T)
        first, last = np.searchsorted(library.wave.numpy(), [wave[0] / margin, wave[-1] * margin])
        length = min(next_fast_len(int(last - first) + 1, real=True), library.wave.numel())  # the transforms of other lengths take four times as long
        start = int(min(max(first - 1, 0), library.wave.numel() - length))
        return cls(library, slice(start, start + length), wave, stars.resolution, basis, _walls(library, fastest), **stated)

    def model(self, x: Float[Tensor, "n 6"]) -> Float[Tensor, "n n_pix"]:
        """Flux over continuum (float32) of stars with parameters ``x``."""
        labels = (x * x.new_tensor(UNIT)).float()
        flux = self.library.flux_unchecked(labels[:, :5])
        cut = replace(self.library, wave=self.library.wave[self.part])
        return spread(flux[:, self.part], cut, self.wave, self.resolution, torch.ones(len(x)), labels[:, 5])

    def jacobian(self, x: Float[Tensor, "n 6"]) -> Float[Tensor, "n 6 n_pix"]:
        """Derivatives of ``model``, central differences, all in one call."""
        step = torch.diag(x.new_tensor(STEP))
        both = self.model(torch.cat([x[:, None] + step, x[:, None] - step], 1).reshape(-1, len(UNIT)))
        plus, minus = both.double().reshape(len(x), 2, len(UNIT), -1).unbind(1)
        return (plus - minus) / (2 * x.new_tensor(STEP)[:, None])

    def beyond(self, x: Float[Tensor, "n 6"]) -> Float[Tensor, "n m"]:
        """How far each star is outside each wall; negative inside."""
        return x @ self.walls[:, :-1].T + self.walls[:, -1]

    def constraints(self, x: Float[Tensor, "n 6"]) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n c 6"], int]:
        """Priors and walls as further residuals, to be squared and added to chi-square; their Jacobian; and how many of them are priors."""
        trend = -0.3 * x[:, 2].clamp(-1, 0)
        slope = torch.zeros(len(x), 2, len(UNIT), dtype=x.dtype)
        slope[:, 0, 2] = 0.3 * ((x[:, 2] > -1) & (x[:, 2] < 0))
        slope[:, 0, 3] = slope[:, 1, 4] = 1
        spreads, outside = x.new_tensor(self.spreads), self.beyond(x).clamp(min=0)
        walls = self.walls[:, :-1] * (outside > 0)[:, :, None] / WALL
        value = torch.stack([x[:, 3] - trend, x[:, 4]], 1) / spreads
        return torch.cat([value, outside / WALL], 1), torch.cat([slope / spreads[:, None], walls], 1), 2


@dataclass(frozen=True, eq=False)
class Spectra:
    """A block of stars, float64; flux and variance are 0 and 1 where a pixel is not in use."""

    flux: Float[Tensor, "n n_pix"]
    variance: Float[Tensor, "n n_pix"]
    use: Bool[Tensor, "n n_pix"]

    @classmethod
    def of(cls, flux, ivar, use) -> Spectra:
        return cls(torch.as_tensor(np.where(use, flux, 0.0)), torch.as_tensor(1 / np.where(use, ivar, 1.0)), torch.as_tensor(use))

    def __getitem__(self, rows) -> Spectra:
        return replace(self, flux=self.flux[rows], variance=self.variance[rows], use=self.use[rows])

    def weight(self, variance) -> Float[Tensor, "n n_pix"]:
        """Inverse of noise plus the given further variance; 0 where not in use."""
        return self.use / (self.variance + variance)






def objective(instrument: Instrument, spectra: Spectra, weight: Float[Tensor, "n n_pix"], x: Float[Tensor, "n 6"]) -> Float[Tensor, " n"]:
    """Chi-square with the best continuum, and the constraints."""
    residual, *_ = _residual(instrument, spectra, weight, x)
    return (weight * residual.square()).sum(1) + instrument.constraints(x)[0].square().sum(1)


def slope(instrument: Instrument, spectra: Spectra, weight: Float[Tensor, "n n_pix"],
          x: Float[Tensor, "n 6"]) -> tuple[Float[Tensor, "n 6"], Float[Tensor, "n 6 6"]]:
    """Half the gradient of ``objective``, exact, and half its Hessian without second derivatives, the continuum being eliminated."""
    residual, jacobian = linear(instrument, spectra, weight, x)
    value, change, _ = instrument.constraints(x)
    gradient = -(jacobian @ (weight * residual)[..., None])[..., 0] + (change.mT @ value[..., None])[..., 0]
    return gradient, (jacobian * weight[:, None]) @ jacobian.mT + change.mT @ change


def linear(instrument: Instrument, spectra: Spectra, weight, x) -> tuple[Float[Tensor, "n n_pix"], Float[Tensor, "n 6 n_pix"]]:
    """Residual, and the derivatives of the model less what the continuum can imitate of them (weighted): Kaufman's elimination."""
    residual, columns, continuum = _residual(instrument, spectra, weight, x)
    jacobian = instrument.jacobian(x) * continuum[:, None]
    weighted = columns * weight[:, None]
    return residual, jacobian - solve(weighted @ columns.mT, weighted @ jacobian.mT).mT @ columns


def weights(instrument: Instrument, spectra: Spectra, x: Float[Tensor, "n 6"]):
    """``(weight, correction, reduced chi-square)`` from the residuals at ``x``: noise and stated model error, scaled to the median residual
    of the star, times Student's weight. ``correction`` is by how much the weights overstate the curvature of Student's likelihood."""
    start = spectra.weight(START_ERROR**2)
    flux = instrument.model(x).double().clamp(0.01, 1)
    _, _, continuum = _residual(instrument, spectra, start, x)
    weight = spectra.weight(continuum.square() * flux.square() * ((instrument.lines * flux.log()).square() + instrument.floor**2))
    residual, *_ = _residual(instrument, spectra, weight, x)
    square = weight * residual.square()
    count = spectra.use.sum(1)
    scale = torch.where(spectra.use, square, torch.nan).nanmedian(1).values[:, None] / 0.4549  # the median of chi-square with 1 degree of freedom
    square = square / scale.clamp(min=1e-12)
    student = (TAIL + 1) / (TAIL + square)
    derivative = (TAIL + 1) * (TAIL - square) / (TAIL + square).square()
    correction = (spectra.use * derivative).sum(1) / (spectra.use * student).sum(1)
    free = len(UNIT) + len(instrument.basis)
    return weight * student / scale.clamp(min=1e-12), correction, (weight * residual.square()).sum(1) / (count - free)


def covariance(instrument: Instrument, spectra: Spectra, weight, correction, x: Float[Tensor, "n 6"]) -> Float[Tensor, "n 6 6"]:
    """Sandwich of the inverse curvature and the variance of the gradient, summed over pairs of pixels up to ``LAGS`` apart.

    The priors count as one more measurement; the walls do not: at the edge of the library an error is what it would be without the edge.
    """
    residual, jacobian = linear(instrument, spectra, weight, x)
    _, change, n_priors = instrument.constraints(x)
    prior = change[:, :n_priors].mT @ change[:, :n_priors]
    curvature = (jacobian * weight[:, None]) @ jacobian.mT * correction[:, None, None] + prior
    score = jacobian * (weight * residual)[:, None]
    spread_of = score @ score.mT + prior
    for lag in range(1, LAGS + 1):
        product = score[..., lag:] @ score[..., :-lag].mT
        spread_of = spread_of + (1 - lag / (LAGS + 1)) * (product + product.mT)
    inverse = torch.linalg.inv(curvature)
    return inverse @ spread_of @ inverse



def _walls(library: Library, fastest: float) -> Float[Tensor, "m 7"]:
    """``a . x + b <= 0``: the hull of the model photospheres, the box of the labels, the carbon limit, the range of the velocity."""
    unit = torch.tensor(UNIT, dtype=torch.float64)
    box = torch.cat([library.box.double(), torch.tensor([[-fastest, fastest]])]) / unit[:, None]
    eye = torch.eye(len(unit), dtype=torch.float64)
    hull = torch.zeros(len(library.hull), 7, dtype=torch.float64)
    hull[:, :3], hull[:, 6] = library.hull[:, :3], library.hull[:, 3]
    carbon = torch.tensor([[0, 0, 0, -1, 1, 0, -library.c_over_alpha]], dtype=torch.float64)
    return torch.cat([hull, torch.cat([-eye, box[:, :1]], 1), torch.cat([eye, -box[:, 1:]], 1), carbon])


def _residual(instrument: Instrument, spectra: Spectra, weight, x):
    """Data less model; the model's columns (n, k, n_pix), one a polynomial; the continuum (n, n_pix) that fits best."""
    columns = instrument.model(x).double()[:, None] * instrument.basis
    weighted = columns * weight[:, None]
    coefficient = solve(weighted @ columns.mT, weighted @ spectra.flux[..., None])[..., 0]
    return spectra.flux - (coefficient[:, None] @ columns)[:, 0], columns, coefficient @ instrument.basis


def solve(normal, right):
    """Normal equations, with just enough added that a half masked spectrum does not make them singular."""
    k = normal.shape[-1]
    small = 1e-10 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * torch.eye(k, dtype=normal.dtype)
    vector = right.ndim == normal.ndim - 1
    found = torch.linalg.solve(normal + small, right[..., None] if vector else right)
    return found[..., 0] if vector else found
