"""SpectraFM: pixels of any instrument as tokens, labels as tokens, and answers to requests: a label, or the flux at a wavelength.

FAQ
---
*Which pixels does it read?* All of a spectrum in one context, if it has at most ``n_context``; neighbouring ones are averaged until it has, and the
resolving power says so. (The published model reads random 512 of 7,514 pixels, and averages the answers of several such draws.)
*Does it see what it is asked for?* Never in training. In use, ``flux_at`` hides the pixels that it is asked about.

Source: Koblischke & Bovy 2024 (arXiv:2411.04750). Sizes at ``paper``: 8,024,066 parameters; the published file has 11,870,722, of which 3,846,656 are
the rows of 7,513 of the 7,514 pixels in two tables, never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..continuum import normalize
from ..errors import LabelError, MismatchError, SpectrumError
from ..library import LABELS, load_library
from ..objects import require_stars
from ..spectra import SpectraSet
from ..weights import load_tensors, save_tensors
from .foundation import check_names
from .pixel_tokens import FLUX, Bins, bin_pixels
from .request_transformer import RequestConfig, RequestTransformer
from .tokens import PADDING, Tokens, join

IDENTITY = {"flux": FLUX, **{name: FLUX + 1 + i for i, name in enumerate(LABELS)}}
FLUX_SCALE = (1.0, 0.1)                               # flux over continuum is 1, its lines are a tenth deep
PRESETS = {
    "paper": RequestConfig(256, ((16, 2048), (8, 1024)), ((16, 2048), (8, 1024), (4, 512)), (2048, 1024, 512, 256), n_context=512, dropout=0.05),
    "small": RequestConfig(128, ((4, 512), (4, 512)), ((4, 512), (4, 512), (4, 512)), (512, 256, 64), n_context=512, dropout=0.0, turned=True),
    "tiny": RequestConfig(32, ((2, 64), (2, 64)), ((2, 64), (2, 64)), (64, 32), n_context=128, dropout=0.0, turned=True),
}


@dataclass(frozen=True)
class SpectraFMCard:
    """What the weights have to carry."""

    sizes: RequestConfig
    recipe: str                                       # of normalisation
    spans: tuple[tuple[float, float], ...]            # vacuum Angstrom it was trained on
    library_sha256: dict[str, str]
    scatter: dict                                     # of each label on held-out simulated stars, by survey
    training: dict                                    # stars, steps, seeds, seconds


class SpectraFM(nn.Module):
    """One network for spectra of all its ``spans``; results are numpy arrays, K and dex.

    >>> model = sk.load_model("small_spectrafm")
    >>> model.predict(stars, "feh")                                  # value (n,), sigma (n,)
    >>> model.request(stars, ["logg", "feh"], known={"teff": teff})   # {"logg": (value, sigma), "feh": ...}
    >>> model.flux_at(stars, wave)                                   # flux over continuum (n, n_wave), sigma, from the other pixels
    >>> model.flux_at(None, wave, 2000.0, known={"teff": ...})        # from labels alone
    """

    def __init__(self, card: SpectraFMCard, seed: int = 0):
        super().__init__()
        self.card = card
        self.network = RequestTransformer(card.sizes, len(IDENTITY), waves=True, seed=seed, spans=card.spans)
        self.network.centre[FLUX], self.network.spread[FLUX] = FLUX_SCALE

    def predict(self, stars: SpectraSet, label: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(value, sigma)`` of one label; raises as ``request`` does."""
        return self.request(stars, [label])[label]

    def request(self, stars: SpectraSet | None, labels: Sequence[str], known: dict | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """``{label: (value (n,), sigma (n,))}``, all labels in one pass, from the spectra and from what is ``known``: labels (n,), NaN where not.

        Raises
        ------
        LabelError
            An unknown label, one both known and asked for, or a wrong number of values.
        MismatchError
            Spectra it was not made for, see ``bins``; or the model is untrained.
        """
        if both := [name for name in labels if name in (known or {})]:
            raise LabelError(f"{both[0]!r} is known and asked for: the answer would be a copy. Leave it out of one of the two.")
        context = self.context(stars, known)
        value, sigma = self._answer(context, self.requests(labels, len(context.identity)))
        return {name: (value[:, i], sigma[:, i]) for i, name in enumerate(labels)}

    def flux_at(self, stars: SpectraSet | None, wave: Float[np.ndarray, " n_wave"], resolution: float | Float[np.ndarray, " n_wave"] | None = None,
                known: dict | None = None, hide: bool = True) -> tuple[Float[np.ndarray, "n n_wave"], Float[np.ndarray, "n n_wave"]]:
        """Flux over continuum at any wavelengths (vacuum A) of its spans and at a resolving power, and its sigma.

        Parameters
        ----------
        resolution : one number or one a wavelength; that of the tokens the spectra are read in when not given.
        hide : leave out of the context every token that covers a wavelength asked for, so that it is predicted from the others.

        Raises
        ------
        SpectrumError
            Hiding would leave no token; ask for part of the wavelengths at a time, or set ``hide=False`` for a smoothed copy.
        MismatchError
            A wavelength outside the spans, or no resolving power known for it.
        """
        self._check_spans(wave)
        context, bins = self.context(stars, known), None if stars is None else self.bins(stars)
        if bins is not None and hide:
            context = _hidden(context, bins, wave)
        if resolution is None:
            if bins is None or wave.min() < bins.wave[0].item() - 20 or wave.max() > bins.wave[-1].item() + 20:
                raise MismatchError("The spectra do not cover these wavelengths, so that their resolving power does not tell at which one the flux is wanted; "
                                    "give resolution=2000.0, say.")
            resolution = np.interp(wave, bins.wave.numpy(), bins.resolution.numpy())
        numbers = [torch.as_tensor(np.broadcast_to(x, wave.shape).copy(), dtype=torch.float32).expand(len(context.identity), -1) for x in (0, 0, wave, resolution)]
        return self._answer(context, Tokens(torch.full(numbers[0].shape, FLUX), *numbers))

    @torch.no_grad()
    def attention(self, stars: SpectraSet, labels: Sequence[str], batch: int = 16) -> Float[Tensor, "n n_layer n_head n_request n_context"]:
        """Where each label looks, in each block of the decoder: shares of the tokens, in the order of ``bins(stars)``, that sum to 1."""
        self.eval()
        context = self.context(stars).to(self.network.centre.device)
        requests, parts = self.requests(labels, len(stars)).to(context.value.device), [slice(i, i + batch) for i in range(0, len(stars), batch)]
        return torch.cat([self.network.attention(context.rows(part), requests.rows(part)).cpu() for part in parts])

    def forward(self, context: Tokens, requests: Tokens) -> tuple[Float[Tensor, "n n_request"], Float[Tensor, "n n_request"]]:
        """Value and sigma of every request, as tensors; gradients reach ``context.value``."""
        return self.network.answer(context, requests)

    def bins(self, stars: SpectraSet) -> Bins:
        """The tokens of these spectra: normalised here when raw, on their own pixels, averaged until there are at most ``n_context``.

        Raises
        ------
        MismatchError
            The spectra are not in the rest frame, were normalised by another recipe, or lie outside the spans.
        SpectrumError
            They cannot be normalised, or are of what is no star (``labels["object_class"]``).
        """
        stars = self.prepare(stars)
        usable = torch.as_tensor(~stars.mask & (np.where(stars.mask, 0, stars.ivar) > 0))
        flux, ivar, _ = stars.to_torch()
        error = torch.where(usable, ivar, 1.0).rsqrt()
        return bin_pixels(stars.wave, stars.resolution, flux, error, ~usable, -(-stars.wave.size // self.card.sizes.n_context))

    def prepare(self, stars: SpectraSet) -> SpectraSet:
        """The spectra in vacuum and normalised, on their own pixels; raises as ``bins`` does."""
        require_stars(stars)
        if stars.frame != "rest":
            raise MismatchError(f"The spectra are in the {stars.frame} frame, this model reads rest-frame ones: a shifted line is another line to it. "
                                "Use stars.to_rest(z) on the raw spectra first.")
        stars = stars.to_vacuum()
        if stars.normalization == "none":
            stars = normalize(stars, self.card.recipe, own_pixels(stars.wave, self.card.spans))
        if stars.normalization != self.card.recipe:
            raise MismatchError(f"The spectra were normalised by {stars.normalization!r}, this model was trained on {self.card.recipe!r}; give it the raw spectra.")
        self._check_spans(stars.wave)
        return stars

    def context(self, stars: SpectraSet | None, known: dict | None = None) -> Tokens:
        """What the network is told: the spectra's tokens, then one a known label; raises as ``request`` does."""
        known = {name: torch.as_tensor(np.asarray(value, "f4")) for name, value in (known or {}).items()}
        n = len(stars) if stars is not None else len(next(iter(known.values()), ()))
        parts = [] if stars is None else [self.bins(stars).tokens()]
        for name, value in known.items():
            if value.shape != (n,):
                raise LabelError(f"{name!r} has shape {tuple(value.shape)}; expected ({n},), one value a star, NaN where it is not known.")
            value, none = value[:, None], torch.zeros(n, 1)
            has = torch.isfinite(value)
            parts.append(Tokens(torch.where(has, self._identity(name), PADDING), torch.where(has, value, 0.0), none, none, none))
        if not parts:
            raise LabelError("Neither spectra nor known labels were given; the answer would be the mean of all stars.")
        return join(*parts)

    @torch.no_grad()
    def _answer(self, context: Tokens, requests: Tokens, batch: int = 64) -> tuple[np.ndarray, np.ndarray]:
        if not self.card.training:
            raise MismatchError("This model is untrained: its answers are random numbers. Use a shipped one (sk.load_model), or train one "
                                "with spectrakit.pretraining.")
        self.eval()
        device = self.network.centre.device
        answers = [self(context.rows(slice(i, i + batch)).to(device), requests.rows(slice(i, i + batch)).to(device)) for i in range(0, len(context.identity), batch)]
        none = torch.zeros(0, requests.identity.shape[1])
        return tuple(torch.cat([none, *(part.cpu() for part in parts)]).double().numpy() for parts in (zip(*answers, strict=True) if answers else ((), ())))

    def requests(self, labels: Sequence[str], n: int) -> Tokens:
        """The tokens that ask for these labels, the same of ``n`` stars; an unknown label raises ``LabelError``."""
        identity = torch.tensor([self._identity(name) for name in labels]).expand(n, -1)
        none = torch.zeros(identity.shape)
        return Tokens(identity, none, none, none, none)

    def _identity(self, name: str) -> int:
        if name not in LABELS:
            raise LabelError(f"No label {name!r}; this model knows: {', '.join(LABELS)}. Fluxes are asked for with flux_at.")
        return IDENTITY[name]

    def _check_spans(self, wave) -> None:
        inside = np.zeros(len(wave), bool)
        for low, high in self.card.spans:
            inside |= (wave >= low - 2) & (wave <= high + 2)
        if not inside.all():
            spans = ", ".join(f"{low:.0f}-{high:.0f}" for low, high in self.card.spans)
            raise MismatchError(f"{(~inside).sum()} of {len(wave)} wavelengths (first: {wave[~inside][0]:.0f} A) lie outside what this model was trained on, "
                                f"{spans} A in vacuum. Leave these pixels out, or train a model there.")

    def save(self, path) -> None:
        """Weights and card in one safetensors file."""
        save_tensors(path, dict(self.state_dict()), {"kind": "spectra_fm", "card": asdict(self.card)})

    @classmethod
    def load(cls, path) -> SpectraFM:
        """Read a file made by ``save``; raises as ``FoundationModel.load`` does."""
        tensors, meta = load_tensors(path)
        if meta.get("kind") != "spectra_fm":
            raise MismatchError(f"{path} holds {meta.get('kind', 'something')!r}, not a SpectraFM.")
        card = meta["card"]
        model = cls(SpectraFMCard(**{**card, "sizes": RequestConfig.from_card(card["sizes"]), "spans": tuple(tuple(span) for span in card["spans"])}))
        for name, sha in model.card.library_sha256.items():
            load_library(name).require(sha, f"The model {getattr(path, 'name', path)}")
        check_names(model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return model.eval()


def own_pixels(wave: Float[np.ndarray, " n_pix"], spans: Sequence[tuple[float, float]]) -> Float[np.ndarray, " n_new"]:
    """The pixels of a spectrum that lie in one of the spans, the first it covers.

    Raises
    ------
    MismatchError
        It covers none of them.
    """
    for low, high in spans:
        if wave[0] <= low + 2 and wave[-1] >= high - 2:
            return wave[(wave >= low) & (wave <= high)]
    raise MismatchError(f"The spectra cover {wave[0]:.0f}-{wave[-1]:.0f} A, none of {', '.join(f'{low:.0f}-{high:.0f} A' for low, high in spans)} as a whole, over "
                        "which their continuum is to be fitted. Normalise them yourself, or use a model of their range.")


def _hidden(context: Tokens, bins: Bins, wave: Float[np.ndarray, " n_wave"]) -> Tokens:
    """Padding in place of the tokens that cover one of these wavelengths."""
    centre = bins.wave.double().numpy()
    middle = (centre[1:] + centre[:-1]) / 2
    covered = torch.zeros(context.identity.shape[1], dtype=torch.bool)
    near = (wave > centre[0] - 20) & (wave < centre[-1] + 20)
    covered[torch.as_tensor(np.unique(np.searchsorted(middle, wave[near])))] = True
    identity = context.identity.masked_fill(covered, PADDING)
    if (identity == PADDING).all(1).any():
        raise SpectrumError("Every usable token covers a wavelength asked for; nothing would be left to predict from. Ask for part of them at a time, "
                            "or set hide=False for a smoothed copy.")
    return context._replace(identity=identity)
