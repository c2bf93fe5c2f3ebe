"""The recipe for few labels of which fewer are metal-poor: two pretrained models, adapted, averaged, held back where labels are rare, with intervals that cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.table import Table
from jaxtyping import Float

from ..adaptation.fit import Fit, adapt
from ..adaptation.frozen import Frozen
from ..errors import MismatchError
from ..models.aligned import AlignedModel
from ..models.foundation import FoundationModel
from ..models.pixels import PixelsConfig
from ..models.shipped import load_model
from ..spectra import SpectraSet, concatenate
from .conformal import LEVEL, CrossConformal
from .density import density_weights
from .ensemble import Ensemble
from .support import Gated, Support

Model = FoundationModel | AlignedModel
FEW = 2.0                                        # labels near a star: below, nobody has checked what is said of such stars
COMPONENTS, NEIGHBOURS = 10, 5


@dataclass(frozen=True, eq=False)
class Robust:
    """What ``sk.adapt(..., recipe="robust")`` returns.

    Attributes
    ----------
    fits : one ``Fit`` a model; ``members`` and ``zero_shot`` are means over them, ``budget`` the labelled stars.
    gated : the ensemble of the fits, held back to zero-shot where labels are few; ``conformal`` its intervals.
    """

    fits: Sequence[Fit]
    gated: Gated
    conformal: CrossConformal
    stars: SpectraSet

    @property
    def label(self) -> str:
        """The label it predicts."""
        return self.gated.label

    @property
    def budget(self) -> int:
        """Number of labelled stars used, those for validation included."""
        return len(self.stars)

    def predict(self, stars: SpectraSet) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(value, sigma)`` in the label's unit; sigma is half the width of the 68 % interval.

        Raises
        ------
        MismatchError
            Spectra the models were not made for.
        """
        return self.conformal.predict(stars)

    def interval(self, stars: SpectraSet, level: float = LEVEL) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(low, high)`` that contain the label of a star like the labelled ones with probability ``level``; see ``CrossConformal``."""
        return self.conformal.interval(stars, level)

    def members(self, stars: SpectraSet) -> Float[np.ndarray, "m n"]:
        """What each cross-fitted member says."""
        return self.gated.members(stars)

    def zero_shot(self, stars: SpectraSet) -> Float[np.ndarray, " n"]:
        """What the models said before they were adapted, their mean."""
        return self.gated.zero_shot(stars)

    def support(self, stars: SpectraSet) -> np.ndarray:
        """Boolean (n,): False is a warning, for one of the reasons that ``reasons`` names. Intervals say nothing about such stars."""
        table = self.reasons(stars)
        return ~(np.asarray(table["few_labels"]) | np.asarray(table["far"]) | np.asarray(table["disagree"]))

    def reasons(self, stars: SpectraSet) -> Table:
        """Why a star has no support, three columns of True and False.

        ``few_labels`` : fewer than two labelled stars near it along the label.
        ``far`` : its embedding (of the first model) is farther from those of labelled stars than any of these is from the others.
        ``disagree`` : the models differ by more, zero-shot, than on any labelled star.
        One in n + 1 stars like the n labelled ones is called far by chance, and one in n + 1 in disagreement.
        """
        few = self.gated.support.count(self.zero_shot(stars)) < FEW
        components, own = self._space
        far = _distance(components(self._embed(stars)), components(self._embed(self.stars)), NEIGHBOURS) > own.max()
        return Table({"few_labels": few, "far": far, "disagree": self._apart(stars) > self._apart(self.stars).max()})

    @cached_property
    def _space(self):
        """The way into principal components of the labelled stars' embeddings, and the distance of each from the others there."""
        from sklearn.decomposition import PCA
        embedding = self._embed(self.stars)
        pca = PCA(min(COMPONENTS, len(embedding) - 1), whiten=True, random_state=0).fit(embedding)
        inside = pca.transform(embedding)
        return pca.transform, _distance(inside, inside, NEIGHBOURS + 1)

    def _embed(self, stars: SpectraSet) -> np.ndarray:
        return self.fits[0].embed(stars)

    def _apart(self, stars: SpectraSet) -> np.ndarray:
        return np.ptp([fit.zero_shot(stars) for fit in self.fits], axis=0)


def robust(models: Sequence[Model], train: SpectraSet, *, label: str, seed: int, validation: SpectraSet | None = None, frozen: Sequence | None = None,
           **settings) -> Robust:
    """Adapt several models to the same stars, and put them together.

    Parameters
    ----------
    models : the first one's embedding tells which stars are far from all labelled ones. A spectrum model gets LoRA in its head, an aligned pair in the head on the
        projected embedding, a model on the flux itself a residual head.
    frozen : a ``Frozen`` for each model, to share between fits.
    train, validation, label, seed, settings : as in ``sk.adapt``; ``weights`` are ``density_weights`` when not given.

    Raises
    ------
    LabelError, MismatchError
        As ``sk.adapt``; or fewer than two models.
    """
    if len(models) < 2:
        raise MismatchError(f"{len(models)} model given; expected at least two, e.g. (sk.load_model('small'), sk.load_model('small_flux')).")
    frozen = [None] * len(models) if frozen is None else frozen
    if settings.get("weights") is None:
        settings["weights"] = density_weights(train.label(label))
    fits = [adapt(model, train, label=label, placement=_placement(model), seed=seed, validation=validation, frozen=own, **settings)
            for model, own in zip(models, frozen, strict=True)]
    stars = train if validation is None else concatenate(train, validation)
    ensemble = Ensemble(fits)
    support = Support.of(ensemble.zero_shot(stars))
    gated = Gated(ensemble, support)
    return Robust(fits, gated, CrossConformal.of(gated, train, validation, seed, support.width), stars)


def robust_beside_flux(model: Model, train: SpectraSet, frozen: Frozen | None, **settings) -> Robust:
    """``sk.adapt(..., recipe="robust")``: the model that is given, and ``small_flux``.

    Raises
    ------
    MismatchError
        The model is ``small_flux`` itself, or one like it: there is nothing to put beside it.
    """
    if isinstance(model, FoundationModel) and isinstance(model.card.encoder, PixelsConfig):
        raise MismatchError("This model reads the flux itself, and so does the one the recipe puts beside it; give it a model with an encoder, "
                            "sk.load_model('small'), or choose both: spectrakit.remedies.robust.robust(models, ...).")
    return robust((model, load_model("small_flux")), train, frozen=(frozen, None), **settings)


def _placement(model: Model) -> tuple[str]:
    if isinstance(model, AlignedModel):
        return ("lora4",)
    return ("residual",) if isinstance(model.card.encoder, PixelsConfig) else ("lora2",)


def _distance(points, base, k: int) -> np.ndarray:
    """Mean distance to the ``k`` nearest of ``base``; a point of the base itself counts as one of them."""
    from scipy.spatial import cKDTree
    return cKDTree(base).query(points, k=min(k, len(base)))[0].reshape(len(points), -1).sum(1) / NEIGHBOURS
