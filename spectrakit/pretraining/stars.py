"""The Transformer for stars: a table of simulated stars as a survey would have it, and random questions about them without end."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from astropy import constants as c
from astropy import units as u
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri
from torch import Tensor

from .. import gaia_xp
from ..library import LABELS, load_library
from ..models.star_transformer import BP, COLOURS, IDENTITY, PRESETS, RP, STAR_LABELS, UNSEEN, VOCABULARY, StarCard, StarTransformer
from ..models.tokens import PADDING, Tokens
from ..photometry import REDDENING
from ..population import catalogue
from ..simulation import simulate
from ..training import TrainConfig, train
from .requests import RequestLoss

POPULATIONS = ("gaia", "apogee", "miles")             # in equal parts
LN_EBV = (-2.408, 1.834, -7.0, 0.7)                   # mean, scatter, least and largest; the published medians of the survey's stars
ERRORS = {"teff": 30.0, "logg": 0.05, "m_h": 0.03, "ln_ebv": 0.15}               # medians over stars, assumed; each star's own is up to 1.5 times more or less
COLOUR_ERROR = 0.004                                  # mag, of BP-RP: the zero points'
MISSING = {("teff", "logg", "m_h"): 0.335, (*BP, *RP): 0.084, ("g_luminosity",): 0.030, ("ln_ebv",): 0.030, ("j_h", "j_k"): 0.005}    # published shares
RELEVANT = 4.0                                        # coefficients are left out from where the rest is noise: chi^2 within so many of its own sigmas
BLOCK = 8192                                          # stars simulated at a time


@dataclass(frozen=True, eq=False)
class StarTable:
    """Observables (n, 118) in the order of ``VOCABULARY`` and their standard errors; NaN where missing. ``truth`` is complete: labels without error,
    coefficients and BP-RP with their noise. ``relevant`` is False for coefficients that are all noise; no context has them."""

    value: Float[np.ndarray, "n 118"]
    error: Float[np.ndarray, "n 118"]
    truth: Float[np.ndarray, "n 118"]
    relevant: Bool[np.ndarray, "n 118"]

    def column(self, name: str, kind: str = "value") -> np.ndarray:
        """One observable's ``value``, ``error``, ``truth`` or ``relevant``, (n,)."""
        return getattr(self, kind)[:, IDENTITY[name] - 1]

    def known(self, names, rows=slice(None)) -> dict[str, Float[np.ndarray, " n"]]:
        """What ``StarTransformer.request`` takes: NaN where missing or all noise."""
        return {name: np.where(self.column(name, "relevant"), self.column(name), np.nan)[rows] for name in names}


def simulate_stars(n: int, seed: int, *, r_v: float | int = 3.1) -> StarTable:
    """``n`` stars as Gaia, 2MASS and a spectroscopic survey would list them: noise, dust, label errors and gaps as published for the training set.

    Dust is log-normal, so that half of the stars have less than 0.08 mag of E(B-V) and a tenth more than 0.65. Coefficients are irrelevant from
    where the rest of an arm is noise. Errors of labels are assumed; colours J-H and J-K scatter by 0.025 mag, which counts as theirs, not as error.

    Source of shares and of the distribution of dust: Leung & Bovy 2024 (MNRAS 527, 1494), its public training set's.
    """
    block = min(BLOCK, max(1, -(-n // len(POPULATIONS))))
    parts = [_block(min(block, n - start), np.random.SeedSequence([seed, i]), POPULATIONS[i % len(POPULATIONS)], float(r_v))
             for i, start in enumerate(range(0, n, block))]
    return StarTable(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "error", "truth", "relevant")))


def _block(n: int, seeds: np.random.SeedSequence, population: str, r_v: float) -> StarTable:
    first, second, third = (int(s) for s in seeds.generate_state(3))
    rng = np.random.default_rng(third)
    table = catalogue(population, n, first, load_library("xp"))
    mean, scatter, low, high = LN_EBV
    ln_ebv = mean + scatter * ndtri(rng.uniform(*ndtr((np.array([low, high]) - mean) / scatter), n))
    more = np.exp(ln_ebv) - np.asarray(table["ebv"])
    j_h, j_k = (np.asarray(table[name]) + (REDDENING["j"] - REDDENING[band]) * more for name, band in (("j_h", "h"), ("j_k", "k")))
    table["ebv"], table["r_v"], table["g"] = np.exp(ln_ebv), np.full(n, r_v), rng.uniform(9.0, 15.5, n)
    stars = simulate("gaia_xp", n, second, labels=table)
    truth = {"bp_rp": np.asarray(stars.labels["bp_rp"]), "j_h": j_h, "j_k": j_k, "teff": stars.label("teff"), "logg": stars.label("logg"),
             "m_h": metals(stars.label("feh"), stars.label("alpha_fe")), "ln_ebv": ln_ebv}
    g = np.asarray(stars.labels["g"])
    coeff, coeff_err = (np.asarray(stars.labels[name]) / gaia_xp.g_flux(g)[:, None] for name in ("coeff", "coeff_err"))
    value, error = dict(truth), {"bp_rp": np.full(n, COLOUR_ERROR), "j_h": np.zeros(n), "j_k": np.zeros(n)}
    for name, typical in ERRORS.items():
        error[name] = typical * 1.5 ** rng.uniform(-1, 1, n)
        value[name] = truth[name] + error[name] * rng.standard_normal(n)
    magnitude = absolute_g(table)
    parallax_error = 0.02 * (1 + 10 ** (0.4 * (g - 15.0))) ** 0.5                # mas; Gaia DR3: 0.02 of bright stars, 0.035 at G = 15.5
    truth["g_luminosity"], error["g_luminosity"] = 10 ** (0.2 * (magnitude + 10)), parallax_error * 10 ** (0.2 * g)
    value["g_luminosity"] = truth["g_luminosity"] + error["g_luminosity"] * rng.standard_normal(n)
    columns = lambda of, spectrum: np.concatenate([spectrum, *(np.asarray(of[name], "f8")[:, None] for name in (*COLOURS, *STAR_LABELS))], 1)    # noqa: E731
    gaps = _gaps(n, rng)
    return StarTable(*(np.where(gaps, np.nan, part) for part in (columns(value, coeff), columns(error, coeff_err))), columns(truth, coeff),
                     relevant(coeff / coeff_err))


def metals(feh: Float[np.ndarray, " n"], alpha_fe: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """[M/H] of stars whose alpha elements are enhanced: Salaris, Chieffi & Straniero 1993 (ApJ 414, 580), equation 3."""
    return feh + np.log10(0.638 * 10**alpha_fe + 0.362)


def absolute_g(table) -> Float[np.ndarray, " n"]:
    """Absolute G (mag) of a catalogue's stars behind their dust: the library's surface flux times (radius / 10 pc)^2.

    The Sun comes out at 4.55, 0.12 mag too bright: the library has strong lines only.
    """
    library, design = load_library("xp"), gaia_xp.load_design()
    numbers, wave = torch.as_tensor(np.stack([np.asarray(table[name], "f8") for name in LABELS], 1)), library.wave.numpy()
    surface = (library.flux_unchecked(numbers) * library.continuum_at(wave, numbers)).double().numpy() * 1e-2         # erg / s / cm2 / A -> W / m2 / nm
    ebv, r_v, mass = (np.asarray(table[name], "f8") for name in ("ebv", "r_v", "mass"))
    seen = (surface * gaia_xp.extinguish(wave, ebv, r_v)) @ (gaia_xp.instrument(wave) @ design.bands[0])
    radius2 = (c.GM_sun * mass / (10 ** numbers[:, 1].numpy() * u.cm / u.s**2)).to_value(u.m**2)
    return design.zero_point[0] - 2.5 * np.log10(seen * radius2 / (10 * u.pc).to_value(u.m) ** 2)


def relevant(significance: Float[np.ndarray, "n 110"]) -> np.ndarray:
    """Boolean (n, 118): False for the coefficients of an arm from where the rest of it is noise."""
    stands_out = np.ones((len(significance), len(VOCABULARY)), bool)
    for first in (0, gaia_xp.N_BP):
        square = significance[:, first:first + gaia_xp.N_BP] ** 2
        tail, left = np.cumsum(square[:, ::-1], 1)[:, ::-1], np.arange(gaia_xp.N_BP, 0, -1)
        last = gaia_xp.N_BP - 1 - (tail > left + RELEVANT * np.sqrt(2 * left))[:, ::-1].argmax(1)
        stands_out[:, first:first + gaia_xp.N_BP] = np.arange(gaia_xp.N_BP) <= last[:, None]
    return stands_out


def _gaps(n: int, rng: np.random.Generator) -> np.ndarray:
    """Boolean (n, 118): True for what the survey does not have of a star."""
    gaps = np.zeros((n, len(VOCABULARY)), bool)
    for names, share in MISSING.items():
        gaps[np.ix_(rng.random(n) < share, [IDENTITY[name] - 1 for name in names])] = True
    return gaps


class StarTokens:
    """Questions about the stars of a table: some of a star's observables as context, others requested. Batch ``step`` depends on seed and step alone.

    Each star's context is drawn for itself: in half of the cases from all it has, else from two of the groups BP, RP, colours, labels on average, so
    that labels alone and one arm alone are met as often as a mixture. Its size is uniform up to the batch's largest, 16, 32 or ``n_context``. Coefficients
    that are all noise are no context (as published), but asked for: the loss knows their errors.

    Parameters
    ----------
    requested_in_context : draw requests from all a star has, context included, as published, in place of the rest.
    n_request : requests a star; colours and labels are drawn sixteen times as often as a coefficient. Fewer where it lacks more: padding.
    """

    def __init__(self, table: StarTable, n_context: int, batch: int, seed: int, n_request: int = 32, requested_in_context: bool = False):
        self.value, self.error = (torch.as_tensor(part, dtype=torch.float32) for part in (table.value, table.error))
        self.relevant = torch.as_tensor(table.relevant)
        self.n_context, self.batch, self.seed, self.n_request, self.copying = n_context, batch, seed, n_request, requested_in_context
        self.group = torch.tensor([0] * len(BP) + [1] * len(RP) + [2] * len(COLOURS) + [3] * len(STAR_LABELS))
        self.weight = torch.where(self.group < 2, 1.0, 16.0)
        self.weight[[IDENTITY[name] - 1 for name in UNSEEN]] = 0.0

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        """Context and requests as ``RequestLoss`` takes them."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rows = torch.randint(len(self.value), (self.batch,), generator=generator)
        has = torch.isfinite(self.value[rows])
        chosen = self.draw_context(has & self.relevant[rows], generator)
        wanted = has & (self.weight > 0) & (torch.ones_like(has) if self.copying else ~chosen)
        race = torch.empty(has.shape).exponential_(generator=generator) / self.weight.clamp(min=1e-30)
        asked = _first(race.masked_fill(~wanted, torch.inf), torch.full((len(rows),), self.n_request))
        return *self._tokens(rows, chosen), *self._tokens(rows, asked)

    def draw_context(self, has, generator: torch.Generator):
        """Boolean (n, 118): what each star tells about itself; at least one observable that it has is left out."""
        n = len(has)
        kept = (torch.rand(n, 4, generator=generator) < 0.5) | (torch.rand(n, 1, generator=generator) < 0.5)
        allowed = has & kept[:, self.group]
        largest = min(self.n_context, (16, 32, self.n_context)[int(torch.randint(3, (), generator=generator))])
        size = torch.minimum(1 + torch.randint(largest, (n,), generator=generator), has.sum(1) - 1)
        return _first(torch.rand(has.shape, generator=generator).masked_fill(~allowed, torch.inf), size)

    def _tokens(self, rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The chosen observables of each star to the left, padding to the right, as many columns as the fullest star needs."""
        width = max(1, int(chosen.sum(1).max()))
        column = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        there = chosen.gather(1, column)
        value, error = (torch.where(there, part[rows].gather(1, column), 0.0) for part in (self.value, self.error))
        return torch.where(there, column + 1, PADDING), value, error


def _first(key: Tensor, count: Tensor) -> Tensor:
    """Boolean, True for the ``count`` (n,) smallest finite keys of each row."""
    return (key.argsort(1).argsort(1) < count[:, None]) & torch.isfinite(key)


def pretrain_stars(preset: str, folder: Path, *, n_stars: int, steps: int, batch: int, lr: float, seed: int, precision: str, r_v: float | int = 3.1,
                   requested_in_context: bool = False, start: StarTransformer | None = None) -> StarTransformer:
    """Simulate ``n_stars``, train on random questions about them; resumes where it was stopped. The card is filled in, sigmas are calibrated.

    ``start``: a model of the same preset, whose weights and units are gone on from.

    Raises
    ------
    MismatchError
        ``folder`` holds a checkpoint of other settings.
    """
    began = time.time()
    model = StarTransformer(StarCard(PRESETS[preset], load_library("xp").sha256, float(r_v), {}, {}), seed)
    table = simulate_stars(n_stars, seed, r_v=r_v)
    if start is not None:
        model.load_state_dict(start.state_dict())
    else:
        centre = np.nanmedian(table.value, 0)
        model.network.centre[1:] = torch.as_tensor(centre)
        model.network.spread[1:] = torch.as_tensor(1.4826 * np.nanmedian(np.abs(table.value - centre), 0))
    config = TrainConfig(steps, lr, seed, warmup=500, weight_decay=0.01, betas=(0.9, 0.98), precision=precision, muon=True)
    train(RequestLoss(model.network), StarTokens(table, model.card.sizes.n_context, batch, seed, requested_in_context=requested_in_context), config, folder, "stars")
    training = {"n_stars": n_stars, "batch": batch, "requested_in_context": requested_in_context, "stage": asdict(config), "seed": seed}
    training |= {} if start is None else {"start": start.card.training}
    model.card = replace(model.card, scatter=calibrate_stars(model, simulate_stars(max(256, n_stars // 16), seed + 1000, r_v=r_v), seed),
                         training={**training, "seconds": round(time.time() - began)})
    return model.cpu().eval()


@torch.no_grad()
def calibrate_stars(model: StarTransformer, table: StarTable, seed: int) -> dict[str, float]:
    """Stretch each observable's sigma until it covers 68.3 % of held-out answers to questions as in training; ``{name: robust scatter}`` of the labels."""
    network, questions, found = model.network.eval(), StarTokens(table, model.card.sizes.n_context, 256, seed), []
    device = network.centre.device
    for step in range(3 * len(table.value) // 256):
        parts = questions(step)
        context, requests = Tokens(*parts[:3]).to(device), Tokens(*parts[3:]).to(device)
        value, sigma = network.answer(context, requests)
        ratio = (value - requests.value) / (sigma.square() + requests.error.square()).sqrt()
        asked = requests.identity != PADDING
        found.append(torch.stack([requests.identity[asked].float(), ratio[asked], (value - requests.value)[asked]]).cpu())
    identity, ratio, residual = torch.cat(found, 1)
    scatter = {}
    for name, i in IDENTITY.items():
        if (own := identity == i).sum() >= 100:
            network.stretch[0, i] *= ratio[own].abs().quantile(0.6827).item()
            if name in STAR_LABELS:
                scatter[name] = round(float(1.4826 * residual[own].abs().median()), 4)
    return scatter
