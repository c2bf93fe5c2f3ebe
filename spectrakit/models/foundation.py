"""A pretrained model as one uses it: encoder, heads, and everything it has to know about the spectra it was made for."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..continuum import fill_masked, require_normalized
from ..errors import LabelError, MismatchError
from ..library import load_library
from ..objects import require_stars
from ..spectra import SpectraSet
from ..surveys import get_survey
from ..threads import at_a_time
from ..weights import load_tensors, save_tensors
from .heads import LabelHead
from .pixels import Pixels, PixelsConfig
from .spectrum_transformer import PRESETS, SpectrumTransformer, TransformerConfig

HEAD_LABELS = ("teff", "logg", "feh", "alpha_fe")
# Of the spectra's resolving power over that of pretraining: at these ends [Fe/H] of simulated stars moves by 0.04-0.07 dex, as much as it scatters
SHARPNESS = (0.7, 1.7)
HEADS = {"paper": (1024, 512, 64), "small": (256, 128, 64), "tiny": (64, 32, 16)}


@dataclass(frozen=True)
class Card:
    """What weights have to carry: without their grid and normalisation they are the commonest way to wrong numbers."""

    encoder: TransformerConfig | PixelsConfig
    hidden: tuple[int, ...]
    recipe: str                      # of normalisation
    ln10_start: float                # log10 of the first wavelength, vacuum Angstrom
    log10_step: float
    library_sha256: str
    survey: str                      # simulated for pretraining
    sigma: dict[str, float]          # of each head on held-out simulated stars
    training: dict                   # stages, numbers of spectra, seeds, seconds

    @property
    def grid(self) -> np.ndarray:
        """(n_pix,) vacuum Angstrom."""
        return 10 ** (self.ln10_start + self.log10_step * np.arange(self.encoder.n_pix))


def prepare(stars: SpectraSet, card: Card, device: torch.device) -> tuple[Tensor, Tensor]:
    """``FoundationModel.prepare``, for any model with this card."""
    if stars.frame != "rest":
        raise MismatchError(f"The spectra are in the {stars.frame} frame, this model reads rest-frame ones: a shifted line is another line to it. "
                            "Use stars.to_rest(z) on the raw spectra first.")
    stars = require_normalized(stars, card.recipe, card.grid)
    _check_resolution(stars, card)
    return torch.as_tensor(fill_masked(stars), dtype=torch.float32, device=device), torch.as_tensor(stars.mask, device=device)


class FoundationModel(nn.Module):
    """Encoder, or the flux itself (``Pixels``), and one head a label (``teff`` K, ``logg``, ``feh``, ``alpha_fe`` dex).

    ``model.to("cuda")`` moves it; results come back as numpy.

    >>> model = sk.load_model("small")
    >>> model.embed(stars)                     # (n, d_model)
    >>> model.predict(stars, "feh")            # value (n,), sigma (n,)
    """

    def __init__(self, card: Card, seed: int = 0):
        super().__init__()
        self.card = card
        self.encoder = Pixels(card.encoder) if isinstance(card.encoder, PixelsConfig) else SpectrumTransformer(card.encoder, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleDict({label: LabelHead(card.encoder.d_model, card.hidden, dropout=0.0) for label in HEAD_LABELS})

    def prepare(self, stars: SpectraSet) -> tuple[Tensor, Tensor]:
        """``(flux, mask)`` tensors (n, n_pix) as the encoder wants them: normalised here when raw, masked pixels bridged.

        Raises
        ------
        MismatchError
            The spectra were normalised by another recipe, lie on another grid or on air wavelengths, are not in the rest frame, or have a median
            resolving power below 0.7 or above 1.7 times that of the survey the model was pretrained on.
        SpectrumError
            A spectrum that cannot be normalised, or is masked altogether.
        """
        return prepare(stars, self.card, next(self.parameters()).device)

    @torch.no_grad()
    def embed(self, stars: SpectraSet, batch: int | None = None) -> Float[np.ndarray, "n d_model"]:
        """One vector a star: the mean over its tokens. Raw spectra are normalised first; ``batch`` of them go through the encoder together."""
        self.eval()
        flux, mask = self.prepare(stars)
        batch = at_a_time(flux.device) if batch is None else batch
        none = flux.new_zeros(0, self.card.encoder.d_model)                      # so that no star gives no embedding, not an error
        return torch.cat([none, *(self.encoder(flux[i:i + batch], mask[i:i + batch]) for i in range(0, len(flux), batch))]).cpu().numpy()

    @torch.no_grad()
    def predict(self, stars: SpectraSet, label: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Zero-shot ``(value, sigma)`` in the label's unit; sigma is the scatter on held-out simulated stars, so a lower limit on real ones.

        Raises
        ------
        LabelError
            There is no head for this label.
        MismatchError
            Spectra that it was not made for, see ``prepare``; or the model is untrained.
        SpectrumError
            Spectra of galaxies, sky, or what the survey could not classify (``labels["object_class"]``).
        """
        self.require_label(label)
        require_stars(stars)
        return self.from_embedding(self.embed(stars), label)

    @torch.no_grad()
    def from_embedding(self, embedding: Float[np.ndarray, "n d_model"], label: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``predict`` of vectors that ``embed`` made: several labels of one embedding. Raises as ``predict``."""
        self.require_label(label)
        if label not in self.card.sigma:
            raise MismatchError("This model is untrained: its heads give random numbers, and its card has no scatter for them. Use a shipped one "
                                "(sk.load_model), or train one with spectrakit.pretraining.")
        self.eval()
        value = self.heads[label](torch.as_tensor(embedding, device=next(self.parameters()).device))[:, 0].double().cpu().numpy()
        return value, np.full(len(value), self.card.sigma[label])

    def require_label(self, label: str) -> None:
        """Raise ``LabelError`` unless there is a head for it."""
        if label not in self.heads:
            raise LabelError(f"No head for {label!r}; this model has: {', '.join(self.heads)}.")

    def network(self, label: str) -> nn.Module:
        """A copy of the encoder and one head in a row, for adapters to be put into: ``adaptation.network.LabelNetwork``."""
        from ..adaptation.network import LabelNetwork
        self.require_label(label)
        return LabelNetwork(deepcopy(self.encoder), deepcopy(self.heads[label]))

    def save(self, path) -> None:
        """Weights and card in one safetensors file."""
        save_tensors(path, dict(self.state_dict()), {"kind": "foundation", "card": asdict(self.card)})

    @classmethod
    def load(cls, path) -> FoundationModel:
        """Read a file made by ``save``.

        Raises
        ------
        DataFileError
            Missing, truncated or corrupted file.
        MismatchError
            The weights belong to another library, or their names and shapes are not those of the card.
        """
        tensors, meta = load_tensors(path)
        if meta.get("kind") != "foundation":
            raise MismatchError(f"{path} holds {meta.get('kind', 'something')!r}, not a foundation model.")
        card = dict(meta["card"])
        sizes = TransformerConfig if "d_model" in card["encoder"] else PixelsConfig
        model = cls(Card(**{**card, "encoder": sizes(**card["encoder"]), "hidden": tuple(card["hidden"])}))
        load_library().require(model.card.library_sha256, f"The model {getattr(path, 'name', path)}")
        check_names(model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return model.eval()


def _check_resolution(stars: SpectraSet, card: Card) -> None:
    """On the model's grid, after ``normalize`` has refused spectra of another range."""
    made = float(np.median(get_survey(card.survey).resolution(card.grid)))
    own, low, high = float(np.median(stars.resolution)), SHARPNESS[0] * made, SHARPNESS[1] * made
    if low <= own <= high:
        return
    todo = (f"Degrade the raw spectra: sk.degrade(stars, {made:.0f})." if own > high else
            "What they have lost does not come back: they need a model pretrained on a survey like theirs (spectrakit.surveys, spectrakit.pretraining).")
    raise MismatchError(f"The spectra have a resolving power of {own:.0f}, this model was pretrained on {made:.0f} and reads {low:.0f} to {high:.0f}: "
                        f"with lines of another width [Fe/H] comes out too low, by about 0.1 dex at {2 * made:.0f} and 0.2 dex at {made / 2:.0f}. {todo}")


def new_model(preset: str, *, survey: str, recipe: str, seed: int) -> FoundationModel:
    """An untrained model of a preset size for spectra of the LRS grid."""
    card = Card(PRESETS[preset], HEADS[preset], recipe, 3.602, 1e-4, load_library().sha256, survey, {}, {})
    return FoundationModel(card, seed)


def new_flux_model(preset: str, *, survey: str, recipe: str, seed: int) -> FoundationModel:
    """An untrained model of ``new_model``'s heads on the flux itself: what foundation models have to beat."""
    card = Card(PixelsConfig(), HEADS[preset], recipe, 3.602, 1e-4, load_library().sha256, survey, {}, {})
    return FoundationModel(card, seed)


def check_names(expected: dict, found: dict) -> None:
    """Raise ``MismatchError`` unless names and shapes of the tensors ``found`` are those ``expected``."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        raise MismatchError(f"The weights do not fit the model: missing {missing[:3] or 'nothing'}, unknown {extra[:3] or 'nothing'}.")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise MismatchError(f"{name} has shape {tuple(found[name].shape)}; the model needs {tuple(tensor.shape)}.")
