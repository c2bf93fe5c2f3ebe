"""Is a spectrum like those that a network was pretrained on? Outside of them it answers as readily as inside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .models.foundation import FoundationModel
from .simulation import simulate
from .spectra import SpectraSet

N_REFERENCE, N_FOLDS, SHARE = 400, 4, 0.99  # spectra, parts, share of pretraining spectra that count as inside


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Mean (d_model,) and inverse covariance (d_model, d_model) of the embeddings of pretraining spectra; ``limit``, within which 99 % of fresh ones lie."""

    mean: Float[np.ndarray, " d"]
    precision: Float[np.ndarray, "d d"]
    limit: float

    @classmethod
    def of(cls, model: FoundationModel) -> Pretrained:
        """From 400 spectra simulated as those of pretraining were, not the same. Computed once for the same weights; a few seconds.

        The limit is taken from spectra that the covariance was not estimated with (four parts in turn): in as many dimensions the others lie too near.
        Source: Lee et al. 2018 (arXiv:1807.03888), without classes; covariance shrunk as Ledoit & Wolf 2004 (J. Multivariate Anal. 88, 365).
        """
        key = digest(model)
        if key not in _KNOWN:
            z = model.embed(simulate(model.card.survey, N_REFERENCE, seed=0)).astype("f8")
            parts = np.arange(len(z)) % N_FOLDS
            fresh = np.concatenate([_distance(z[parts == k], *_moments(z[parts != k])) for k in range(N_FOLDS)])
            _KNOWN[key] = cls(*_moments(z), float(np.quantile(fresh, SHARE)))
        return _KNOWN[key]

    def distance(self, embedding: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Mahalanobis distance (n,) of embeddings from the pretraining spectra: in standard deviations, all directions together."""
        return _distance(embedding.astype("f8"), self.mean, self.precision)


_KNOWN: dict[str, Pretrained] = {}


def distance(model: FoundationModel, stars: SpectraSet) -> tuple[Float[np.ndarray, " n"], float]:
    """How far each spectrum lies from those of pretraining, (n,), and the distance within which 99 % of these lie. Spectra as for ``model.embed``.

    Far away means that labels are guessed. Near does not mean that they are right: two spectra that differ in what the encoder does not look at
    have one embedding.
    """
    known = Pretrained.of(model)
    return known.distance(model.embed(stars)), known.limit


def digest(model: FoundationModel) -> str:
    """SHA-256 over names and values of a model's weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _moments(z):
    from sklearn.covariance import LedoitWolf
    fitted = LedoitWolf().fit(z)
    return fitted.location_, fitted.get_precision()


def _distance(z, mean, precision):
    return np.sqrt(np.einsum("ni,ij,nj->n", z - mean, precision, z - mean))
