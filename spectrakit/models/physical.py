"""The physical baseline: the embedded library fitted to each star by chi-square. It has seen no label, only atomic physics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from astropy import units as u
from astropy.table import Table
from jaxtyping import Float
from torch import Tensor

from ..errors import LabelError, SpectrakitError, SpectrumError
from ..library import CENTRE, LABELS, SCALE, Library, load_library
from ..objects import require_stars
from ..spectra import SpectraSet, label_table
from ..threads import one_thread
from .baselines import Pixels, Prediction
from .chi_square import START_ERROR, UNIT, WALL, Instrument, Spectra, covariance, objective, slope, solve, weights

BLOCK = 32                                   # stars at a time: memory does not grow with n
LIMIT = (0.5, 1.0, 0.5, 0.3, 0.3, 1.0)       # longest step of one iteration: the linear model is not trusted further
ENOUGH = 0.01                                # of chi-square: a hundredth of what a sigma costs, and no more is to be gained
APART = 0.5                                  # starting points differ by this much in the library's coordinates (700 K, 1.7 in logg, 0.6 in feh)


@dataclass
class PhysicalFit:
    """Chi-square fit of the embedded library with five labels, a velocity and the continuum free. A ``Regressor`` that uses zero labels.

    Model: library spectrum, brought to ``stars.resolution``, moved by the velocity, times a Legendre polynomial, whose coefficients are solved
    for exactly. The polynomial also takes up the pseudo-continuum that was divided out, so any recipe of degree below ``degree`` will do.

    Weights: the variance of a pixel is 1 / ivar + (model error)^2. The model error is stated, not fitted to any label: ``lines``, the relative
    error of the opacities that surveys.py declares, hence flux |ln flux| ``lines``, and ``floor`` of the flux. One factor a star, from its
    median residual, scales the sum. Student weights (4 degrees of freedom) take bad pixels out.

    Errors: Newey-West sandwich, that is, curvature scaled by the residuals' own variance and their correlation over 8 pixels. It does not know
    how wrong the library is in all stars alike: real stars scatter more.

    Parameters
    ----------
    library : the ``Library`` to fit; the embedded one when None.
    degree : of the polynomial. 8, the degree to which calibration errors are declared.
    lines, floor : model error, see above.
    alpha_spread : dex, width of the prior on alpha_fe about the Galaxy's trend (0 at [Fe/H] >= 0, 0.3 at <= -1); ``inf`` for none.
    c_spread : dex, width of the prior on c_fe about 0; ``inf`` for none. teff, logg and feh have no prior but the hull of the library.
    velocities : km/s to start from; each captures +-100 km/s or so. Rest-frame spectra need one; heliocentric ones ``range(-400, 401, 100)``.
    n_starts : starting points a star, the best library models that differ from each other: a dwarf can look like a giant.

    Source: Levenberg-Marquardt with the linear parameters eliminated (Kaufman 1975, BIT 15, 49); Newey & West 1987 (Econometrica 55, 703).
    """

    library: Library | None = None
    degree: int = 8
    lines: float = 0.1
    floor: float = 0.005
    alpha_spread: float = 0.15
    c_spread: float = 0.3
    velocities: Sequence[float | int] = (0.0,)
    n_starts: int = 3

    def fit(self, stars: SpectraSet, label: str) -> PhysicalFit:
        """Remembers the name of the label and the kind of spectra. No label is read: ``stars`` need not have any.

        Raises
        ------
        LabelError
            Not a label of the library.
        MismatchError
            As ``fit_labels``.
        """
        if label not in LABELS:
            raise LabelError(f"The library has the labels {', '.join(LABELS)}, not {label!r}.")
        self._instrument(stars)
        self._label, self._pixels = label, Pixels(stars[:0], np.ones(stars.wave.size, bool), np.zeros(stars.wave.size))
        return self

    def predict(self, stars: SpectraSet) -> Prediction:
        """``(value, sigma)``, each (n,), of the label named in ``fit``, in K or dex; errors as ``Regressor`` and ``fit_labels``."""
        if not hasattr(self, "_label"):
            raise SpectrakitError("This PhysicalFit is not fitted yet; call fit(stars, label) first.")
        self._pixels.check(stars)
        table = self.fit_labels(stars)
        return np.array(table[self._label]), np.array(table[f"{self._label}_error"])

    def fit_labels(self, stars: SpectraSet) -> Table:
        """Everything the fit finds; needs no ``fit`` before.

        Parameters
        ----------
        stars : continuum normalised, air or vacuum.

        Returns
        -------
        Table of n rows: ``teff`` (K), ``logg``, ``feh``, ``alpha_fe``, ``c_fe`` (dex) inside the hull of the library, ``velocity`` (km/s), each
        with ``*_error``; ``chi2``, reduced, against noise and stated model error; ``at_edge``: the hull of the library holds a label back.

        Raises
        ------
        MismatchError
            Spectra that are not normalised, reach beyond the library's wavelengths, or are sharper than the library.
        SpectrumError
            A star with fewer usable pixels than four times the free parameters; what is no star (``labels["object_class"]``).
        """
        require_stars(stars)
        instrument = self._instrument(stars)
        use = ~stars.mask & (np.where(stars.mask, 0, stars.ivar) > 0)
        least = 4 * (len(UNIT) + self.degree + 1)
        short = use.sum(axis=1) < least
        if short.any():
            raise SpectrumError(f"{short.sum()} of {len(stars)} stars have fewer than {least} usable pixels (first: {np.argmax(short)}); "
                                "leave them out.")
        found, error = np.zeros((len(stars), len(UNIT))), np.zeros((len(stars), len(UNIT)))
        chi2, at_edge = np.zeros(len(stars)), np.zeros(len(stars), bool)
        with torch.no_grad(), one_thread():
            nodes = node_models(instrument, self.velocities)
            for start in range(0, len(stars), BLOCK):
                rows = slice(start, start + BLOCK)
                spectra = Spectra.of(stars.flux[rows], stars.ivar[rows], use[rows])
                found[rows], error[rows], chi2[rows], at_edge[rows] = fit_block(instrument, spectra, nodes, self.n_starts)
        return _table(found, error, chi2, at_edge)

    def _instrument(self, stars: SpectraSet) -> Instrument:
        return Instrument.of(stars, load_library() if self.library is None else self.library, self.degree, self.velocities,
                             spreads=(self.alpha_spread, self.c_spread), lines=self.lines, floor=self.floor)


def _table(found, error, chi2, at_edge) -> Table:
    table = label_table(**dict(zip(LABELS, found.T, strict=False)))
    table["velocity"] = u.Quantity(found[:, 5], "km/s")
    for name, value in zip((*LABELS, "velocity"), error.T, strict=True):
        table[f"{name}_error"] = u.Quantity(value, table[name].unit)
    table["chi2"], table["at_edge"] = chi2, at_edge
    return table


def fit_block(instrument: Instrument, spectra: Spectra, nodes, n_starts: int):
    """``(x, errors, reduced chi-square, at edge)`` of a block of stars; x and errors (n, 6) in K, dex and km/s."""
    n = len(spectra.flux)
    weight = spectra.weight(START_ERROR**2)
    rows = torch.arange(n).repeat_interleave(n_starts)
    x, cost = minimise(instrument, spectra[rows], weight[rows], starts(instrument, spectra, weight, nodes, n_starts))
    x = x.reshape(n, n_starts, -1)[torch.arange(n), cost.reshape(n, n_starts).argmin(1)]
    for _ in range(3):
        weight, *_ = weights(instrument, spectra, x)
        x, _ = minimise(instrument, spectra, weight, x)
    weight, correction, chi2 = weights(instrument, spectra, x)
    at_edge = (instrument.beyond(x) > -2 * WALL).any(1)
    errors = covariance(instrument, spectra, weight, correction, x).diagonal(dim1=1, dim2=2).sqrt()
    unit = x.new_tensor(UNIT)
    return tuple(a.numpy() for a in (inside(instrument, x) * unit, errors * unit, chi2, at_edge))


def node_models(instrument: Instrument, velocities: Sequence[float | int]) -> tuple[Float[Tensor, "m 6"], Float[Tensor, "m n_pix"]]:
    """The computed models that the library interpolates, at every starting velocity: parameters and pixels."""
    labels = instrument.library.tensors["nodes"].double() * torch.tensor(SCALE) + torch.tensor(CENTRE)
    labels[:, 0] = 5040.0 / labels[:, 0]
    x = torch.cat([torch.cat([labels, torch.full((len(labels), 1), float(v)).double()], 1) for v in velocities]) / labels.new_tensor(UNIT)
    return x, instrument.model(x)


def starts(instrument: Instrument, spectra: Spectra, weight: Float[Tensor, "n n_pix"], nodes, n_starts: int) -> Float[Tensor, "s 6"]:
    """``n_starts`` models a star, in a row: the best, then each time the best of those that differ from the ones before."""
    x, models = nodes
    k, square = len(instrument.basis), models.square()
    right = _products((weight * spectra.flux)[:, None] * instrument.basis, models)
    pairs = torch.triu_indices(k, k)
    upper = _products(weight[:, None] * (instrument.basis[pairs[0]] * instrument.basis[pairs[1]]), square)
    normal = upper.new_zeros(*upper.shape[:2], k, k)
    normal[..., pairs[0], pairs[1]] = normal[..., pairs[1], pairs[0]] = upper
    chi2 = -(right * solve(normal, right)).sum(-1)  # up to the star's own weighted flux squared
    place = torch.cat([5040.0 / (1000 * x[:, :1]), x[:, 1:5], x[:, 5:]], 1) / x.new_tensor((*SCALE, 1.0))
    chosen = []
    for _ in range(n_starts):
        best = chi2.argmin(1)
        chosen.append(x[best])
        near = (place - place[best][:, None]).square().sum(-1) < APART**2
        chi2 = torch.where(near, torch.inf, chi2)
    return torch.stack(chosen, 1).reshape(-1, len(UNIT))


def minimise(instrument: Instrument, spectra: Spectra, weight: Float[Tensor, "n n_pix"], x: Float[Tensor, "n 6"],
             iterations: int = 25) -> tuple[Float[Tensor, "n 6"], Float[Tensor, " n"]]:
    """Levenberg-Marquardt from ``x`` with fixed weights: ``(x, cost)``, cost being chi-square and the constraints.

    A star stops when a step promises less than ``ENOUGH`` of cost, or after ``iterations``.
    """
    x, damping, limit = x.clone(), torch.full((len(x),), 1e-3, dtype=x.dtype), x.new_tensor(LIMIT)
    cost, going = objective(instrument, spectra, weight, x), torch.arange(len(x))
    for _ in range(iterations):
        if not len(going):
            break
        gradient, curvature = slope(instrument, spectra[going], weight[going], x[going])
        boost = torch.diag_embed(curvature.diagonal(dim1=1, dim2=2) * damping[going, None])
        step = -torch.linalg.solve(curvature + boost, gradient)
        step = step / (step.abs() / limit).amax(1, keepdim=True).clamp(min=1)
        promise = -(step * gradient).sum(1) - 0.5 * torch.einsum("ni,nij,nj->n", step, curvature, step)
        trial = objective(instrument, spectra[going], weight[going], x[going] + step)
        better = trial < cost[going]
        moved = going[better]
        x[moved], cost[moved] = x[moved] + step[better], trial[better]
        damping[going] = torch.where(better, damping[going] / 5, damping[going] * 8).clamp(1e-7, 1e7)
        going = going[2 * promise > ENOUGH]
    return x, cost


def inside(instrument: Instrument, x: Float[Tensor, "n 6"]) -> Float[Tensor, "n 6"]:
    """The parameters moved into the hull: again and again onto the wall most violated, which ends in a corner all walls allow."""
    x, normals = x.clone(), instrument.walls[:, :-1]
    for _ in range(200):
        worst, which = (instrument.beyond(x) + 1e-5).max(1)
        if (worst <= 0).all():
            break
        face = normals[which]
        x = x - (worst.clamp(min=0) / face.square().sum(1))[:, None] * face * 1.01
    return x


def _products(stars, models):
    """(n, k, n_pix) and (m, n_pix) -> (n, m, k), in the models' precision: every star with every model."""
    n, k, _ = stars.shape
    return (stars.reshape(n * k, -1).to(models.dtype) @ models.T).reshape(n, k, -1).mT.double()
