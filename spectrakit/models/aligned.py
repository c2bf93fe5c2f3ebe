"""An aligned pair of encoders as one uses it: two kinds of spectra in one space, labels from either, each spectrum predicted from the other."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..continuum import fill_masked, normalize
from ..errors import LabelError, MismatchError, SpectrumError
from ..gaia_xp import WAVE
from ..library import load_library
from ..objects import require_stars
from ..spectra import SpectraSet
from ..surveys import GAIA_XP, LAMOST
from ..threads import at_a_time
from ..weights import load_tensors, save_tensors
from .alignment import OTHER, Alignment
from .foundation import HEAD_LABELS, Card, check_names, prepare
from .heads import LabelHead
from .spectrum_transformer import TransformerConfig

XP_RECIPE = "550nm"


@dataclass(frozen=True)
class AlignedCard:
    """What the weights of an aligned pair have to carry."""

    lrs: Card                                 # of the spectrum model whose encoder is in it: grid, normalisation, library
    sizes: dict                               # ``Alignment.card()``
    xp_library_sha256: str
    sigma: dict[str, dict[str, float]]        # of each head, by modality, on held-out simulated stars
    training: dict                            # numbers of pairs, seeds, seconds


class AlignedModel(nn.Module):
    """``Alignment`` with one head a label on each embedding. Which encoder reads a set is told by its survey: ``gaia_xp``, or any of the optical window.

    >>> model = sk.load_model("small_aligned")
    >>> model.embed(stars)                     # (n, d), one space for both
    >>> model.predict(stars, "feh")            # value (n,), sigma (n,)
    >>> model.translate(stars)                 # the same stars as the other survey would see them
    """

    def __init__(self, card: AlignedCard):
        super().__init__()
        self.card = card
        self.alignment = Alignment.from_card(card.sizes)
        n_pix = {"lrs": card.lrs.encoder.n_pix, "xp": WAVE.size}
        self.d_embed = self.alignment.shared["lrs"].query.numel()
        with torch.random.fork_rng(devices=[]):
            self.heads = nn.ModuleDict({m: nn.ModuleDict({k: LabelHead(self.d_embed, card.lrs.hidden, dropout=0.0) for k in HEAD_LABELS}) for m in n_pix})
        for m, size in n_pix.items():
            self.register_buffer(f"{m}_error", torch.ones(size))       # scatter of the spectrum predicted from the other one

    @staticmethod
    def modality(stars: SpectraSet) -> str:
        """``"xp"`` for Gaia XP spectra, ``"lrs"`` for all others."""
        return "xp" if stars.survey == GAIA_XP.name else "lrs"

    def prepare(self, stars: SpectraSet) -> tuple[Tensor, Tensor]:
        """``(flux, mask)`` tensors (n, n_pix) as the encoder of these spectra wants them; normalised here when raw.

        Raises
        ------
        MismatchError
            Spectra of another grid, frame, medium or normalisation.
        SpectrumError
            An XP spectrum with masked points: its encoder has no mask.
        """
        device = next(self.parameters()).device
        if self.modality(stars) == "lrs":
            return prepare(stars, self.card.lrs, device)
        if stars.normalization == "none":
            stars = normalize(stars, XP_RECIPE)
        if stars.normalization != XP_RECIPE:
            raise MismatchError(f"The XP spectra were normalised by {stars.normalization!r}, this model was trained on {XP_RECIPE!r}; give it the raw spectra.")
        gap = stars.mask.any(1)
        if gap.any():
            raise SpectrumError(f"{gap.sum()} of {len(stars)} XP spectra have masked points (first: spectrum {gap.argmax()}), sources without BP perhaps; "
                                "leave them out.")
        return torch.as_tensor(fill_masked(stars), dtype=torch.float32, device=device), torch.as_tensor(stars.mask, device=device)

    @torch.no_grad()
    def embed(self, stars: SpectraSet, batch: int | None = None) -> Float[np.ndarray, "n d"]:
        """One vector a star, in the space that both kinds of spectra share; compared by their cosine. ``batch`` of them go through the encoder together."""
        return self._batches(stars, batch, self.alignment.embed, self.d_embed).numpy()

    @torch.no_grad()
    def predict(self, stars: SpectraSet, label: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(value, sigma)`` of a label from spectra of either kind; sigma is the scatter on held-out simulated stars of that kind.

        Raises
        ------
        LabelError
            There is no head for this label.
        SpectrumError
            Spectra of what is no star (``labels["object_class"]``).
        """
        self.require_label(label)
        require_stars(stars)
        m = self.modality(stars)
        embedding = torch.as_tensor(self.embed(stars), device=next(self.parameters()).device)
        value = self.heads[m][label](embedding)[:, 0].double().cpu().numpy()
        return value, np.full(len(value), self.card.sigma[m][label])

    @torch.no_grad()
    def translate(self, stars: SpectraSet) -> SpectraSet:
        """The same stars as the other survey would see them, normalised its way. ``ivar`` is the inverse square of the scatter that translations of
        simulated stars have, pixel by pixel; for XP it contains the dust, which the lines do not tell.

        Raises
        ------
        MismatchError
            This model has no decoders (variant ``base``).
        """
        if self.alignment.config.variant == "base":
            raise MismatchError("This model was aligned without decoders (variant 'base'); it compares spectra but predicts none. Use 'pr' or 'split'.")
        other = OTHER[self.modality(stars)]
        survey, wave, recipe = (GAIA_XP, WAVE, XP_RECIPE) if other == "xp" else (LAMOST, self.card.lrs.grid, self.card.lrs.recipe)
        flux = self._batches(stars, None, self.alignment.predict, len(wave)).numpy()
        error = getattr(self, f"{other}_error").cpu().numpy()
        provenance = {**stars.provenance, "history": [*stars.provenance.get("history", []), f"predicted from {stars.survey}"]}
        return SpectraSet(wave, flux, np.broadcast_to(error**-2.0, flux.shape).copy(), np.zeros(flux.shape, bool), stars.labels, survey.name, "vacuum", "rest",
                          survey.resolution(wave), recipe, "estimated", provenance)

    def require_label(self, label: str) -> None:
        """Raise ``LabelError`` unless there is a head for it."""
        if label not in self.heads["lrs"]:
            raise LabelError(f"No head for {label!r}; this model has: {', '.join(self.heads['lrs'])}.")

    def network(self, label: str) -> nn.Module:
        """A copy of the LRS side in a row: encoder, projection and one head, for adapters to be put into: ``adaptation.network.LabelNetwork``."""
        from ..adaptation.network import LabelNetwork
        self.require_label(label)
        return LabelNetwork(deepcopy(self.alignment.lrs), deepcopy(self.heads["lrs"][label]), deepcopy(self.alignment.shared["lrs"]))

    def _batches(self, stars: SpectraSet, batch: int | None, work, width: int) -> Tensor:
        self.eval()
        m, (flux, mask) = self.modality(stars), self.prepare(stars)
        batch = at_a_time(flux.device) if batch is None else batch
        none = flux.new_zeros(0, width)                                # so that no star gives no row, not an error
        return torch.cat([none, *(work(m, flux[i:i + batch], mask[i:i + batch]) for i in range(0, len(flux), batch))]).cpu()

    def save(self, path) -> None:
        """Weights and card in one safetensors file."""
        save_tensors(path, dict(self.state_dict()), {"kind": "aligned", "card": asdict(self.card)})

    @classmethod
    def load(cls, path) -> AlignedModel:
        """Read a file made by ``save``; raises as ``FoundationModel.load`` does."""
        tensors, meta = load_tensors(path)
        if meta.get("kind") != "aligned":
            raise MismatchError(f"{path} holds {meta.get('kind', 'something')!r}, not an aligned model.")
        card = dict(meta["card"])
        lrs = {**card["lrs"], "encoder": TransformerConfig(**card["lrs"]["encoder"]), "hidden": tuple(card["lrs"]["hidden"])}
        model = cls(AlignedCard(**{**card, "lrs": Card(**lrs)}))
        for name, sha in (("optical", model.card.lrs.library_sha256), ("xp", model.card.xp_library_sha256)):
            load_library(name).require(sha, f"The model {getattr(path, 'name', path)}")
        check_names(model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return model.eval()
