"""One model, any task: any of 118 observables of a star in, any other out, with its error, without fine-tuning.

The vocabulary: 110 Gaia XP coefficients over the star's G flux, three colours, teff, logg, [M/H], ln E(B-V), and a stand-in for luminosity,
``g_luminosity`` = parallax (mas) times 10^(G / 5), which is linear in what is measured. It is 10^(M_G / 5 + 2), dust included: 100 for a star of absolute
magnitude 0, more for fainter ones.

FAQ
---
*In which unit is a coefficient?* Electrons per second over ``gaia_xp.g_flux(g)``: brightness is gone, dust and temperature are not.
*Does it see what it is asked for?* Never in training; the published model does in 30 % of all cases, and learns to copy
(``StarTokens(requested_in_context=True)`` does the same). ``request`` refuses to be asked for what it is told.
*How many can be known at once?* ``n_context``, 64, as published: all of a spectrum that matters, but not all 110 coefficients.

Source: Leung & Bovy 2024 (MNRAS 527, 1494). At ``paper``: 8,845,529 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import LabelError, MismatchError
from ..gaia_xp import N_BP
from ..library import load_library
from ..weights import load_tensors, save_tensors
from .foundation import check_names
from .request_transformer import RequestConfig, RequestTransformer
from .tokens import PADDING, Tokens

BP, RP = (tuple(f"{arm}{order}" for order in range(N_BP)) for arm in ("bp", "rp"))
COLOURS = ("bp_rp", "j_h", "j_k")
STAR_LABELS = ("teff", "logg", "m_h", "ln_ebv", "g_luminosity")
VOCABULARY = (*BP, *RP, *COLOURS, *STAR_LABELS)
IDENTITY = {name: 1 + i for i, name in enumerate(VOCABULARY)}
UNSEEN = ("bp_rp", "j_k")                             # never asked for in training, so that requests for them are new, as published
PRESETS = {
    "paper": RequestConfig(128, ((16, 1024), (8, 512)), ((16, 3096), (8, 1548), (4, 774)), (3096, 1548, 774, 387), n_context=64, dropout=0.1),
    "small": RequestConfig(128, ((8, 512), (8, 512)), ((8, 512), (8, 512), (8, 512)), (768, 256, 64), n_context=64, dropout=0.0),
    "tiny": RequestConfig(32, ((4, 64), (2, 64)), ((4, 64), (2, 64)), (64, 32), n_context=64, dropout=0.0),
}


@dataclass(frozen=True)
class StarCard:
    """What the weights have to carry."""

    sizes: RequestConfig
    library_sha256: str
    r_v: float                                        # of the dust that reddened the training stars
    scatter: dict                                     # robust, of held-out simulated stars, by what was asked for
    training: dict                                    # stars, steps, seeds, seconds


class StarTransformer(nn.Module):
    """Known observables -> wanted ones. Results are numpy arrays in the units of the vocabulary.

    >>> model = sk.load_model("small_stars")
    >>> answer = model.request({"teff": teff, "logg": logg, "m_h": m_h, "ln_ebv": np.full(n, -7.0)}, ["bp0", "rp0", "j_h"])
    >>> value, sigma = answer["bp0"]                                 # (n,), (n,)
    """

    def __init__(self, card: StarCard, seed: int = 0):
        super().__init__()
        self.card = card
        self.network = RequestTransformer(card.sizes, len(VOCABULARY), waves=False, seed=seed)

    @torch.no_grad()
    def request(self, known: dict[str, Float[np.ndarray, " n"]], wanted: Sequence[str], batch: int = 256) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """``{name: (value (n,), sigma (n,))}`` of everything ``wanted``, in one pass.

        Parameters
        ----------
        known : observables by name, (n,) each, NaN where a star's is missing; names in ``VOCABULARY``.
        wanted : names in ``VOCABULARY`` that are not in ``known``.

        Raises
        ------
        LabelError
            An unknown name, one both known and wanted, values of different length, or more known of a star than ``n_context``.
        MismatchError
            The model is untrained.
        """
        if not self.card.training:
            raise MismatchError("This model is untrained: its answers are random numbers. Use a shipped one (sk.load_model), or train one "
                                "with spectrakit.pretraining.")
        self.eval()
        if both := [name for name in wanted if name in known]:
            raise LabelError(f"{both[0]!r} is known and asked for: the answer would be a copy. Leave it out of one of the two.")
        context, requests = self.context(known), self.requests(wanted)
        parts = [slice(i, i + batch) for i in range(0, len(context.identity), batch)]
        answers = [self(context.rows(part), requests.rows([0] * len(context.identity[part]))) for part in parts]
        none = torch.zeros(0, len(wanted))
        value, sigma = (torch.cat([none, *(answer[i].cpu() for answer in answers)]).double().numpy() for i in (0, 1))
        return {name: (value[:, i], sigma[:, i]) for i, name in enumerate(wanted)}

    @torch.no_grad()
    def attention(self, known: dict[str, Float[np.ndarray, " n"]], wanted: Sequence[str]) -> Float[Tensor, "n n_layer n_head n_request n_context"]:
        """Where each request looks, in each block of the decoder: shares of the known observables, in the order of ``known``, that sum to 1."""
        self.eval()
        context = self.context(known)
        return self.network.attention(context, self.requests(wanted).rows([0] * len(context.identity))).cpu()

    def forward(self, context: Tokens, requests: Tokens) -> tuple[Float[Tensor, "n n_request"], Float[Tensor, "n n_request"]]:
        """Value and sigma of every request, as tensors; gradients reach ``context.value``."""
        return self.network.answer(context, requests)

    def context(self, known: dict[str, Float[np.ndarray, " n"]]) -> Tokens:
        """One token for each that is known, padding where it is missing; raises as ``request`` does."""
        lengths = {name: np.shape(value) for name, value in known.items()}
        if len(set(lengths.values())) != 1 or len(next(iter(lengths.values()))) != 1:
            raise LabelError(f"known has the shapes {lengths or 'of nothing'}; expected one value a star of each, and at least one observable.")
        identity = torch.tensor([_identity(name) for name in known])
        value = torch.as_tensor(np.stack([np.asarray(v, "f4") for v in known.values()], 1))
        has = torch.isfinite(value)
        if (most := max(has.sum(1).tolist(), default=0)) > self.card.sizes.n_context:
            raise LabelError(f"{most} observables of a star are known; this model was trained on at most {self.card.sizes.n_context}. "
                             "Leave out the highest orders of BP and RP, which are noise.")
        tokens = Tokens(torch.where(has, identity, PADDING), torch.where(has, value, 0.0), torch.zeros_like(value))
        return tokens.to(self.network.centre.device)

    def requests(self, wanted: Sequence[str]) -> Tokens:
        """Request tokens (1, n_request), the same for every star."""
        identity = torch.tensor([[_identity(name) for name in wanted]], dtype=torch.int64, device=self.network.centre.device)
        return Tokens(identity, torch.zeros(identity.shape, device=identity.device), torch.zeros(identity.shape, device=identity.device))

    def save(self, path) -> None:
        """Weights and card in one safetensors file."""
        save_tensors(path, dict(self.state_dict()), {"kind": "star_transformer", "card": asdict(self.card)})

    @classmethod
    def load(cls, path) -> StarTransformer:
        """Read a file made by ``save``; raises as ``FoundationModel.load`` does."""
        tensors, meta = load_tensors(path)
        if meta.get("kind") != "star_transformer":
            raise MismatchError(f"{path} holds {meta.get('kind', 'something')!r}, not a Transformer for stars.")
        model = cls(StarCard(**{**meta["card"], "sizes": RequestConfig.from_card(meta["card"]["sizes"])}))
        load_library("xp").require(model.card.library_sha256, f"The model {getattr(path, 'name', path)}")
        check_names(model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return model.eval()


def _identity(name: str) -> int:
    if name not in IDENTITY:
        raise LabelError(f"No observable {name!r}; the vocabulary is bp0-bp{N_BP - 1}, rp0-rp{N_BP - 1}, {', '.join((*COLOURS, *STAR_LABELS))}.")
    return IDENTITY[name]
