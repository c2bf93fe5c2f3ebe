"""What the parts that are not trained make of spectra, computed once and looked up by content."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

from ..errors import MismatchError
from ..models.aligned import AlignedModel
from ..models.foundation import FoundationModel
from ..spectra import SpectraSet
from ..threads import at_a_time
from .network import LabelNetwork


class Frozen:
    """Embeddings, or tokens where a projection is trained, of spectra that one model has seen; share it between fits of the same stars.

    A spectrum is known again by its fluxes and mask, whatever set it comes in. Up to ``max_bytes`` are kept, then no more. Results are those without it up
    to rounding (1e-6): a spectrum's embedding depends on its batch in the last bit.
    """

    def __init__(self, model: FoundationModel | AlignedModel, max_bytes: int = 1_000_000_000):
        self.model, self.room = model, max_bytes
        self._known: dict[bytes, tuple[Tensor, ...]] = {}

    def require(self, model) -> None:
        """Raise ``MismatchError`` unless it was made for this very model."""
        if model is not self.model:
            raise MismatchError("These frozen parts were computed by another model (or another copy of it); make them for this one: Frozen(model).")

    @torch.no_grad()
    def __call__(self, network: LabelNetwork, stage: int, flux: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """What ``network.run`` takes at ``stage``; for stage 0 that is flux and mask themselves."""
        if stage == 0:
            return flux, mask
        keys = [_key(stage, *row) for row in zip(flux.cpu().numpy(), mask.cpu().numpy(), strict=True)]
        missing = [i for i, key in enumerate(keys) if key not in self._known]
        if len(missing) == len(keys):
            return self._keep(keys, _compute(network, stage, flux, mask))
        if missing:
            self._keep([keys[i] for i in missing], fresh := _compute(network, stage, flux[missing], mask[missing]))
            fresh = {keys[i]: tuple(part[j] for part in fresh) for j, i in enumerate(missing)}
        rows = (self._known[key] if key in self._known else fresh[key] for key in keys)
        return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))

    def _keep(self, keys: list[bytes], features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        size = sum(part.nbytes for part in features)
        if size <= self.room:
            self.room -= size
            self._known.update({key: tuple(part[i] for part in features) for i, key in enumerate(keys)})
        return features


def prepared(model: FoundationModel | AlignedModel, *sets: SpectraSet) -> tuple[Tensor, Tensor]:
    """Flux and mask of all sets one after the other, as the model's encoder wants them.

    Raises
    ------
    MismatchError
        Gaia XP spectra: of an aligned pair, the LRS side alone has places for adapters. Or what ``model.prepare`` refuses.
    """
    for stars in sets:
        if isinstance(model, AlignedModel) and model.modality(stars) == "xp":
            raise MismatchError("These are Gaia XP spectra, and only the LRS side of an aligned pair can be adapted. Give it spectra of the optical window; labels "
                                "of these ones come without adaptation: model.predict(stars, label).")
    return tuple(torch.cat(parts) for parts in zip(*(model.prepare(stars) for stars in sets), strict=True))


def _compute(network: LabelNetwork, stage: int, flux: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    many = at_a_time(flux.device)                                                # as in FoundationModel.embed: an embedding depends on its batch in the last bit
    parts = [network.run(*rows, last=stage) for rows in zip(flux.split(many), mask.split(many), strict=True)]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def _key(stage: int, flux, mask) -> bytes:
    return blake2b(flux.tobytes() + mask.tobytes(), digest_size=16, salt=bytes([stage])).digest()
