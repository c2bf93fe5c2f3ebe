"""Stars and a survey -> SpectraSet: the library seen through an instrument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from . import population
from .errors import LabelError
from .library import LABELS, Library, load_library
from .spectra import SpectraSet, label_table, to_vacuum
from .surveys import C_KMS, COMMON, Survey, Systematics, get_survey

BLOCK = 512                                   # stars at a time: memory does not grow with n
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def simulate(survey: str, n: int, seed: int, *, labels: Float[np.ndarray, "n 5"] | None = None, strength: float | int = 1.0) -> SpectraSet:
    """``n`` simulated stars as the named survey would deliver them.

    Parameters
    ----------
    survey : a name in ``spectrakit.surveys.SURVEYS``.
    seed : of everything random here; the same seed and ``n`` give the same spectra. Another ``n`` is another draw.
    labels : (n, 5) teff (K), logg, feh, alpha_fe, c_fe (dex); drawn from the survey's population when not given.
    strength : multiplies the survey's systematics; 0 leaves noise alone.

    Returns
    -------
    SpectraSet with the survey's pixels inside 3960-5640 A, flux per Angstrom scaled to a mean of 1, true labels, ``snr`` per pixel.

    Raises
    ------
    MismatchError
        Unknown survey.
    LabelError
        Labels outside the library's hull, or not ``n`` of them; fewer than one star.
    """
    instrument, library, rng = get_survey(survey), load_library(), np.random.default_rng(seed)
    if n < 1:
        raise LabelError(f"{n} stars asked for; at least 1 can be simulated.")
    if labels is None:
        labels = population.draw(instrument.population, n, rng, library)
    elif labels.shape != (n, 5):
        raise LabelError(f"labels has shape {labels.shape}; expected ({n}, 5): {', '.join(LABELS)}.")
    else:
        library.check(torch.as_tensor(labels))
    source = lambda rows: library.flux_unchecked(torch.as_tensor(labels[rows])) * _shape(library, labels[rows])   # noqa: E731
    return observe(source, labels, instrument, library, rng, instrument.systematics.scaled(strength))


def observe(source: Callable, labels, survey: Survey, library: Library, rng: np.random.Generator, systematics: Systematics) -> SpectraSet:
    """Any spectra on the library's grid, given block by block by ``source(rows)``, through an instrument."""
    wave = window(survey)
    n, blocks = len(labels), []
    for start in range(0, n, BLOCK):
        blocks.append(_observe_block(source(slice(start, start + BLOCK)), wave, survey, library, rng, systematics))
    flux, ivar, snr = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    table = label_table(**dict(zip(LABELS, labels.T, strict=True)), snr=snr, star=np.array([f"sim{i:07d}" for i in range(n)]))
    return SpectraSet(wave, flux, ivar, np.zeros(flux.shape, bool), table, survey.name, survey.medium, survey.frame, survey.resolution(wave), "none",
                      "simulated", {"origin": "simulated", "library_sha256": library.sha256, "systematics": asdict(systematics), "history": []})


def window(survey: Survey) -> Float[np.ndarray, " n_pix"]:
    """The survey's own pixels that lie inside the common window, in the survey's medium."""
    wave = to_vacuum(survey.wave, survey.medium)
    return survey.wave[(wave >= COMMON[0]) & (wave <= COMMON[1])]


def broaden(flux: Float[Tensor, "n n_pix"], step: float, sigma: Float[Tensor, " n"], shift: Float[Tensor, " n"]) -> Float[Tensor, "n n_pix"]:
    """Convolve with a Gaussian of ``sigma`` and move to the red by ``shift``, both in the units of the even grid's ``step``.

    Exact in Fourier space: the transform is multiplied by exp(-2 pi^2 sigma^2 f^2 - 2 pi i shift f). The spectrum is taken as periodic, so
    the outermost 4 sigma + |shift| are not to be used.
    """
    f = torch.fft.rfftfreq(flux.shape[1], step, dtype=flux.dtype)
    damping = torch.exp(-2 * torch.pi**2 * sigma[:, None].square() * f.square())
    phase = -2 * torch.pi * shift[:, None] * f
    return torch.fft.irfft(torch.fft.rfft(flux) * torch.polar(damping, phase), n=flux.shape[1])


def spread(flux: Float[Tensor, "n n_pix"], library: Library, wave: Float[np.ndarray, " n_new"], resolution: Float[np.ndarray, " n_new"],
           scale: Float[Tensor, " n"], velocity: Float[Tensor, " n"]) -> Float[Tensor, "n n_new"]:
    """Library pixels -> an instrument's pixels ``wave`` (vacuum Angstrom): line spread of resolving power ``resolution``, its width times ``scale``,
    and velocity (km/s). Differentiable in flux, scale and velocity.

    Where the width changes along the spectrum, the result is interpolated (cubic, in the variance) between four constant widths; for MILES
    this is within 0.02 % of the continuum.
    """
    step = float(torch.log(library.wave[1] / library.wave[0]))
    width = 1.0 / resolution / FWHM
    sigma = lambda w: torch.sqrt((scale * w).square() - (1.0 / library.resolution / FWHM) ** 2).to(flux.dtype)   # noqa: E731
    shift = (velocity / C_KMS).to(flux.dtype)
    position = torch.as_tensor((np.log(wave) - float(torch.log(library.wave[0]))) / step)
    left, part = position.floor().long(), (position % 1).to(flux.dtype)
    sample = lambda x: torch.lerp(x[:, left], x[:, left + 1], part)                                                # noqa: E731
    if np.ptp(width) < 1e-9:
        return sample(broaden(flux, step, sigma(width.min()), shift))
    nodes = np.linspace(width.min() ** 2, width.max() ** 2, 4)
    result = torch.zeros(len(flux), len(wave), dtype=flux.dtype)
    for i, node in enumerate(nodes):
        weight = np.prod([(width**2 - other) / (node - other) for other in np.delete(nodes, i)], axis=0)
        result = result + torch.as_tensor(weight).to(flux.dtype) * sample(broaden(flux, step, sigma(node**0.5), shift))
    return result


def _shape(library: Library, labels) -> Tensor:
    continuum = library.continuum(torch.as_tensor(labels))
    return continuum / continuum.mean(1, keepdim=True)


def _observe_block(flux: Tensor, wave, survey: Survey, library: Library, rng, s: Systematics):
    n, pixels = flux.shape
    normal = lambda *shape: torch.as_tensor(rng.standard_normal(shape, dtype="f4"))                                # noqa: E731
    knots = torch.nn.functional.interpolate(normal(n, 1, pixels // 4), pixels, mode="linear", align_corners=True)[:, 0]
    flux = flux.float() ** (1.0 + s.lines * knots).clamp(min=0.0)
    scale = (1.0 + s.spread * normal(n)).clamp(0.6, 1.6)
    wave_vacuum = to_vacuum(wave, survey.medium)
    flux = spread(flux, library, wave_vacuum, survey.resolution(wave), scale, s.velocity * normal(n))
    t = torch.linspace(-1, 1, len(wave))
    smooth = torch.as_tensor(np.polynomial.legendre.legvander(t.numpy(), 8)[:, 2:], dtype=torch.float32)
    flux = flux * torch.exp(s.tilt * normal(n, 1) * t + s.calibration / 7**0.5 * normal(n, 7) @ smooth.T)
    flux = flux / flux.mean(1, keepdim=True)
    snr = torch.as_tensor(np.exp(rng.uniform(*np.log(survey.snr), n)), dtype=torch.float32)
    noise = (flux.clamp(min=0.05) ** 0.5) / snr[:, None]
    return (flux + noise * normal(*flux.shape)).numpy(), (1.0 / noise.square()).numpy(), snr.numpy()
