"""Stars and a survey -> SpectraSet: the library seen through an instrument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from astropy.table import Table
from jaxtyping import Float
from torch import Tensor

from . import gaia_xp, population
from .errors import LabelError, MismatchError, SpectrumError
from .held_out import load_held_out
from .library import LABELS, Library, load_library
from .line_spread import spread
from .spectra import SpectraSet, label_table, to_vacuum
from .surveys import GAIA_XP, Survey, Systematics, get_survey
from .threads import in_parallel

BLOCK = 256                                   # stars at a time: memory does not grow with n
MADE = ("snr", "coeff", "coeff_err", "bp_rp")  # columns that an observation makes, whatever the table brings


def simulate(survey: str | Survey, n: int, seed: int, *, labels: Float[np.ndarray, "n 5"] | Table | None = None,
             strength: float | int | Float[np.ndarray, " n"] = 1.0, models: str = "emulator") -> SpectraSet:
    """``n`` simulated stars as the named survey would deliver them.

    Parameters
    ----------
    survey : a name in ``spectrakit.surveys.SURVEYS``, or a declaration: ``dataclasses.replace(surveys.LAMOST, snr=(50, 50))``.
    seed : of everything random here; the same seed and ``n`` give the same spectra. Another ``n`` is another draw.
    labels : (n, 5) teff (K), logg, feh, alpha_fe, c_fe (dex), or a table with these columns; drawn from the survey's population when not given.
        Other columns of a table are taken over, so that a set given the ``labels`` of another survey's set sees the same stars. Gaia XP uses
        ``ebv`` (mag), ``r_v`` and ``g`` (mag) where they are there, and draws E(B-V) from the population and G from 9 to 15.5 where not.
    strength : multiplies the survey's systematics, one number for all or one a star; 0 leaves noise alone.
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
    if models == "held_out":
        return _observe_models(instrument, n, library, rng, strength)
    table = _table(population.draw(instrument.population, n, rng, library) if labels is None else labels, n)
    numbers = np.stack([np.asarray(table[name], "f8") for name in LABELS], 1)
    library.check(torch.as_tensor(numbers))
    return observe(lambda rows: library.opacity(torch.as_tensor(numbers[rows])), table, instrument, library, rng, instrument.systematics, strength)


def _table(labels, n: int) -> Table:
    """The five labels, the star's name, and whatever else a given table has."""
    if isinstance(labels, Table):
        missing = [name for name in LABELS if name not in labels.colnames]
        if missing or len(labels) != n:
            raise LabelError(f"The table of labels has {len(labels)} rows and lacks {', '.join(missing) or 'nothing'}; expected {n} rows with {', '.join(LABELS)}.")
        table = label_table(**{name: labels[name] for name in labels.colnames if name not in MADE})
    elif labels.shape != (n, 5):
        raise LabelError(f"labels has shape {labels.shape}; expected ({n}, 5): {', '.join(LABELS)}.")
    else:
        table = label_table(**dict(zip(LABELS, labels.T, strict=True)))
    if "star" not in table.colnames:
        table["star"] = np.array([f"sim{i:07d}" for i in range(n)])
    return table


def observe(source: Callable, labels: Float[np.ndarray, "n 5"] | Table, survey: Survey, library: Library, rng: np.random.Generator,
            systematics: Systematics, strength: float | int | Float[np.ndarray, " n"] = 1.0) -> SpectraSet:
    """Any stars through an instrument: ``source(rows)`` gives -ln(flux / continuum) on the library's grid; the continuum is that of ``labels``."""
    n = len(labels)
    strength = np.full(n, strength, "f4") if np.ndim(strength) == 0 else np.asarray(strength, "f4")
    if strength.shape != (n,) or not (strength >= 0).all():
        raise SpectrumError(f"strength has shape {strength.shape} and a least value of {strength.min():g}; expected 0 (none) or more, "
                            f"for all or each of {n} stars.")
    table = _table(labels, n)
    numbers, wave = np.stack([np.asarray(table[name], "f8") for name in LABELS], 1), survey.pixels
    if survey.name == GAIA_XP.name:
        gaia_xp.complete(table, population.POPULATIONS[survey.population].ebv, rng)
    blocks = [slice(start, start + BLOCK) for start in range(0, n, BLOCK)]

    def work(rows, own):
        return (_expose_xp if survey.name == GAIA_XP.name else _expose)(source(rows), numbers[rows], table[rows], survey, library, own, systematics, strength[rows])

    parts = in_parallel(work, blocks, rng.spawn(len(blocks)))
    flux, ivar = (np.concatenate([part.pop(key) for part in parts]) for key in ("flux", "ivar"))
    for key in parts[0]:
        table[key] = np.concatenate([part[key] for part in parts])
    mask = np.broadcast_to(survey.unusable(), flux.shape).copy()
    provenance = {"origin": "simulated", "label_scale": "library (Asplund et al. 2009)", "library_sha256": library.sha256, "systematics": asdict(systematics),
                  "strength": [float(strength.min()), float(strength.max())], "history": []}
    return SpectraSet(wave, flux, ivar, mask, table, survey.name, survey.medium, survey.frame, survey.resolution(wave), "none", "simulated", provenance)


def _observe_models(survey: Survey, n: int, library: Library, rng, strength) -> SpectraSet:
    models = load_held_out(survey.library)
    library.require(models.library_sha256, "The set of held-out models")
    chosen = rng.permutation(np.resize(np.arange(len(models.labels)), n))
    table = label_table(**dict(zip(LABELS, models.labels[chosen].T, strict=True)), star=np.array([f"model{models.index[i]:04d}" for i in chosen]))
    stars = observe(lambda rows: models.opacity[chosen[rows]], table, survey, library, rng, survey.systematics, strength)
    stars.provenance["origin"] = "simulated from held-out models"
    return stars


def _lines(opacity: Tensor, library: Library, lines: Tensor, normal: Callable) -> Tensor:
    """Flux over continuum with the opacity of each two resolution elements of the library wrong by a factor 1 + ``lines`` (n, 1) times a normal deviate."""
    knots = round(float(torch.log(library.wave[-1] / library.wave[0])) * library.resolution / 2)
    wrong = torch.nn.functional.interpolate(normal(len(opacity), 1, knots), opacity.shape[1], mode="linear", align_corners=True)[:, 0]
    return torch.exp(wrong.mul_(lines).add_(1.0).clamp_(min=0.0).mul_(opacity).neg_())


def _distortion(pixels: int, s: Systematics, normal: Callable, size: Tensor) -> Tensor:
    """Factor of order 1, (n, pixels): flux calibration and reddening that nobody knows, smooth along the span."""
    smooth = torch.as_tensor(np.polynomial.legendre.legvander(np.linspace(-1, 1, pixels), 8)[:, 1:].T, dtype=torch.float32)
    return ((torch.cat([s.tilt * normal(len(size), 1), s.calibration / 7**0.5 * normal(len(size), 7)], 1) * size) @ smooth).exp_()


def _normal(rng: np.random.Generator) -> Callable:
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))                       # twice as fast as numpy's
    return lambda *shape: torch.randn(*shape, generator=generator)


def _expose(opacity: Tensor, labels, table: Table, survey: Survey, library: Library, rng, s: Systematics, strength) -> dict[str, np.ndarray]:
    """Lines first, then the continuum: it is straight over the width of the line spread, and without it the spectrum is periodic."""
    n, normal, wave, size = len(opacity), _normal(rng), to_vacuum(survey.pixels, survey.medium), torch.as_tensor(strength)
    scale = (1.0 + s.spread * size * normal(n)).clamp(0.6, 1.6)
    flux = spread(_lines(opacity, library, s.lines * size[:, None], normal), library, wave, survey.resolution(survey.pixels), scale, s.velocity * size * normal(n))
    flux = flux.mul_(_distortion(len(wave), s, normal, size[:, None])).mul_(library.continuum_at(wave, torch.as_tensor(labels)))
    flux = flux.div_(flux.mean(1, keepdim=True))
    snr = torch.as_tensor(np.exp(rng.uniform(*np.log(survey.snr), n)), dtype=torch.float32)
    noise = flux.clamp(min=0.05).sqrt_().div_(snr[:, None])
    return {"flux": (normal(*flux.shape).mul_(noise).add_(flux)).numpy(), "ivar": noise.square_().reciprocal_().numpy(), "snr": snr.numpy()}


def _expose_xp(opacity: Tensor, labels, table: Table, survey: Survey, library: Library, rng, s: Systematics, strength) -> dict[str, np.ndarray]:
    """Gaia XP: dust, line spread and noise in the coefficients; velocity and the scatter of the line spread are far below its resolution."""
    normal, wave, size = _normal(rng), library.wave.numpy(), torch.as_tensor(strength)[:, None]
    surface = _lines(opacity, library, s.lines * size, normal) * library.continuum_at(wave, torch.as_tensor(labels)) * _distortion(len(wave), s, normal, size)
    return gaia_xp.observe(surface.double().numpy(), wave, *(np.asarray(table[name], "f8") for name in ("ebv", "r_v", "g")), rng)
