"""Stars and a survey -> SpectraSet: the library seen through an instrument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from astropy.table import Table
from jaxtyping import Complex, Float
from scipy.fft import next_fast_len
from scipy.interpolate import BSpline
from torch import Tensor

from . import population
from .errors import LabelError, MismatchError
from .held_out import load_held_out
from .library import LABELS, Library, load_library
from .spectra import SpectraSet, label_table, to_vacuum
from .surveys import C_KMS, Survey, Systematics, get_survey
from .threads import in_parallel

BLOCK = 256                                   # stars at a time: memory does not grow with n
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


def simulate(survey: str, n: int, seed: int, *, labels: Float[np.ndarray, "n 5"] | Table | None = None, strength: float | int = 1.0,
             models: str = "emulator") -> SpectraSet:
    """``n`` simulated stars as the named survey would deliver them.

    Parameters
    ----------
    survey : a name in ``spectrakit.surveys.SURVEYS``.
    seed : of everything random here; the same seed and ``n`` give the same spectra. Another ``n`` is another draw.
    labels : (n, 5) teff (K), logg, feh, alpha_fe, c_fe (dex), or a table with these columns; drawn from the survey's population when not given.
        Given the ``labels`` of another survey's set, this one sees the same stars, and takes over their names.
    strength : multiplies the survey's systematics; 0 leaves noise alone.
    models : ``"emulator"``, or ``"held_out"``: computed models that the emulator was not fitted to, each used as often as the others. What
        learned from the emulator is to be tested on these. Spectra of one model share the ``star``, so that splits keep them together.

    Returns
    -------
    SpectraSet with the survey's pixels inside its span, flux per Angstrom scaled to a mean of 1, true labels, ``snr`` per pixel.

    Raises
    ------
    MismatchError
        Unknown survey, or unknown ``models``.
    LabelError
        Labels outside the library's hull, or not ``n`` of them, or given together with held-out models; fewer than one star.
    """
    instrument, rng = get_survey(survey), np.random.default_rng(seed)
    library = load_library(instrument.library)
    if n < 1:
        raise LabelError(f"{n} stars asked for; at least 1 can be simulated.")
    if models not in ("emulator", "held_out"):
        raise MismatchError(f"models={models!r}; expected 'emulator' or 'held_out'.")
    if labels is not None and models == "held_out":
        raise LabelError("Held-out models have labels of their own; leave `labels` out.")
    systematics = instrument.systematics.scaled(strength)
    if models == "held_out":
        return _observe_models(instrument, n, library, rng, systematics)
    if labels is None:
        labels = population.draw(instrument.population, n, rng, library)
    numbers = _numbers(labels, n)
    library.check(torch.as_tensor(numbers))
    stars = observe(lambda rows: library.opacity(torch.as_tensor(numbers[rows])), numbers, instrument, library, rng, systematics)
    if isinstance(labels, Table) and "star" in labels.colnames:
        stars.labels["star"] = labels["star"]
    return stars


def _numbers(labels, n: int) -> Float[np.ndarray, "n 5"]:
    if isinstance(labels, Table):
        missing = [name for name in LABELS if name not in labels.colnames]
        if missing:
            raise LabelError(f"The table of labels lacks {', '.join(missing)}; it has {', '.join(labels.colnames)}.")
        labels = np.stack([np.asarray(labels[name], "f8") for name in LABELS], 1)
    if labels.shape != (n, 5):
        raise LabelError(f"labels has shape {labels.shape}; expected ({n}, 5): {', '.join(LABELS)}.")
    return labels


def observe(source: Callable, labels, survey: Survey, library: Library, rng: np.random.Generator, systematics: Systematics) -> SpectraSet:
    """Any stars through an instrument: ``source(rows)`` gives -ln(flux / continuum) on the library's grid; the continuum is that of ``labels``."""
    wave, n = survey.pixels, len(labels)
    blocks = [slice(start, start + BLOCK) for start in range(0, n, BLOCK)]
    continuum = lambda rows: library.continuum_at(to_vacuum(wave, survey.medium), torch.as_tensor(labels[rows]))    # noqa: E731
    work = lambda rows, own: _observe_block(source(rows), continuum(rows), survey, library, own, systematics)   # noqa: E731
    flux, ivar, snr = (np.concatenate(parts) for parts in zip(*in_parallel(work, blocks, rng.spawn(len(blocks))), strict=True))
    mask = np.broadcast_to(survey.unusable(), flux.shape).copy()
    table = label_table(**dict(zip(LABELS, labels.T, strict=True)), snr=snr, star=np.array([f"sim{i:07d}" for i in range(n)]))
    provenance = {"origin": "simulated", "label_scale": "library (Asplund et al. 2009)", "library_sha256": library.sha256, "systematics": asdict(systematics),
                  "history": []}
    return SpectraSet(wave, flux, ivar, mask, table, survey.name, survey.medium, survey.frame, survey.resolution(wave), "none", "simulated", provenance)


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


def _observe_models(survey: Survey, n: int, library: Library, rng, systematics: Systematics) -> SpectraSet:
    models = load_held_out(survey.library)
    library.require(models.library_sha256, "The set of held-out models")
    chosen = rng.permutation(np.resize(np.arange(len(models.labels)), n))
    stars = observe(lambda rows: models.opacity[chosen[rows]], models.labels[chosen], survey, library, rng, systematics)
    stars.labels["star"] = np.array([f"model{models.index[i]:04d}" for i in chosen])
    stars.provenance["origin"] = "simulated from held-out models"
    return stars


def _observe_block(opacity: Tensor, continuum: Tensor, survey: Survey, library: Library, rng, s: Systematics):
    """Lines first, then the continuum: it is straight over the width of the line spread, and without it the spectrum is periodic."""
    n, pixels = opacity.shape
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))                       # twice as fast as numpy's
    normal = lambda *shape: torch.randn(*shape, generator=generator)                                               # noqa: E731
    knots = round(float(torch.log(library.wave[-1] / library.wave[0])) * library.resolution / 2)
    wrong = torch.nn.functional.interpolate(normal(n, 1, knots), pixels, mode="linear", align_corners=True)[:, 0]
    lines = torch.exp(wrong.mul_(s.lines).add_(1.0).clamp_(min=0.0).mul_(opacity).neg_())
    scale, wave = (1.0 + s.spread * normal(n)).clamp(0.6, 1.6), survey.pixels
    flux = spread(lines, library, to_vacuum(wave, survey.medium), survey.resolution(wave), scale, s.velocity * normal(n))
    t = np.linspace(-1, 1, len(wave))
    smooth = torch.as_tensor(np.polynomial.legendre.legvander(t, 8)[:, 1:].T, dtype=torch.float32)
    distortion = torch.cat([s.tilt * normal(n, 1), s.calibration / 7**0.5 * normal(n, 7)], 1) @ smooth
    flux = flux.mul_(distortion.exp_()).mul_(continuum)
    flux = flux.div_(flux.mean(1, keepdim=True))
    snr = torch.as_tensor(np.exp(rng.uniform(*np.log(survey.snr), n)), dtype=torch.float32)
    noise = flux.clamp(min=0.05).sqrt_().div_(snr[:, None])
    return (normal(*flux.shape).mul_(noise).add_(flux)).numpy(), noise.square_().reciprocal_().numpy(), snr.numpy()
