"""Made for one task alone: boosted trees, principal components, and in ``specialist`` a network. Each answers ``request`` for its own inputs and outputs, no others.

FAQ
---
*Whose errors are these?* Trees and components state one sigma an observable, the scatter of training stars kept aside, label errors included.
*What of missing inputs?* Trees know what to do. Components see the median.
*And of missing labels?* Stars without one of those wanted are left out of the training, as published.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..errors import LabelError, SpectrakitError
from .scores import scatter

KEPT_ASIDE = 0.1                                      # of the training stars, for sigma
COMPONENTS = {1: (2, 5, 10, 20, 40), 2: (2, 5, 8, 12)}      # tried, by degree, and all there are; chosen by cross-validation on the training stars


class FixedSet:
    """``inputs`` -> ``outputs``, nothing else.

    ``fit(known, wanted, error)`` takes (n,) arrays by name, standardises by median and robust scatter, and returns the rival; ``error`` is that of ``wanted``, for
    those who can use it. ``request`` is ``StarTransformer``'s.

    Raises
    ------
    LabelError
        ``fit``: an input or output is not there, or fewer than 50 stars have all outputs. ``request``: other names than it was made for.
    SpectrakitError
        ``request`` before ``fit``.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], seed: int = 0):
        self.inputs, self.outputs, self.seed, self._scale = tuple(inputs), tuple(outputs), seed, None

    def fit(self, known: dict[str, Float[np.ndarray, " n"]], wanted: dict[str, Float[np.ndarray, " n"]], error: dict[str, Float[np.ndarray, " n"]] | None = None):
        if missing := [*(name for name in self.inputs if name not in known), *(name for name in self.outputs if name not in wanted)]:
            raise LabelError(f"No {missing[0]!r} to learn from; this {type(self).__name__} is for {len(self.inputs)} inputs and {', '.join(self.outputs[:5])}.")
        x, y = (np.stack([np.asarray(of[name], "f8") for name in names], 1) for of, names in ((known, self.inputs), (wanted, self.outputs)))
        complete = np.isfinite(y).all(1)
        if complete.sum() < 50:
            raise LabelError(f"{complete.sum()} of {len(y)} stars have all of {', '.join(self.outputs[:5])}; at least 50 are needed.")
        e = np.zeros_like(y) if error is None else np.stack([np.asarray(error[name], "f8") for name in self.outputs], 1)
        x, y, e = x[complete], y[complete], e[complete]
        self._scale = (*self._centre_and_spread(x), *self._centre_and_spread(y))
        self._learn((x - self._scale[0]) / self._scale[1], (y - self._scale[2]) / self._scale[3], e / self._scale[3], np.random.default_rng(self.seed))
        return self

    def request(self, known: dict[str, Float[np.ndarray, " n"]], wanted: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """``{name: (value (n,), sigma (n,))}``."""
        if self._scale is None:
            raise SpectrakitError(f"This {type(self).__name__} is not fitted yet; call fit(known, wanted) first.")
        if odd := [*(set(known) ^ set(self.inputs)), *(set(wanted) - set(self.outputs))]:
            raise LabelError(f"This {type(self).__name__} was made for {len(self.inputs)} inputs ({', '.join(self.inputs[:3])} ...) and the outputs "
                             f"{', '.join(self.outputs[:5])}; {sorted(odd)[0]!r} does not fit. Make another one for other tasks.")
        x = np.stack([np.asarray(known[name], "f8") for name in self.inputs], 1)
        value, sigma = self._answer((x - self._scale[0]) / self._scale[1])
        value, sigma = value * self._scale[3] + self._scale[2], np.broadcast_to(sigma, value.shape) * self._scale[3]
        return {name: (value[:, i], sigma[:, i]) for name in wanted for i in [self.outputs.index(name)]}

    @staticmethod
    def _centre_and_spread(x):
        """Median and robust scatter of each column; of one that is never there or constant 0 and 1."""
        there = np.isfinite(x).any(0)
        centre, spread = np.zeros(x.shape[1]), np.ones(x.shape[1])
        centre[there] = np.nanmedian(x[:, there], 0)
        spread[there] = 1.4826 * np.nanmedian(np.abs(x[:, there] - centre[there]), 0)
        return centre, np.where(spread > 0, spread, 1.0)


class Trees(FixedSet):
    """Gradient-boosted trees: ``xgboost.XGBRegressor(n_estimators=2000)``, all else as it comes, the published reference. Needs the extra ``trees``.

    (Theirs is one call for all outputs too, which grows a forest for each.) On one thread: several wait for each other on a busy machine.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], seed: int = 0, n_trees: int = 2000):
        super().__init__(inputs, outputs, seed)
        self.n_trees = n_trees

    def _learn(self, x, y, error, rng):
        try:
            from xgboost import XGBRegressor
        except ModuleNotFoundError as error:
            raise ImportError("Trees need xgboost: pip install 'spectrakit[trees]'.") from error
        grow = lambda rows: XGBRegressor(n_estimators=self.n_trees, random_state=self.seed, n_jobs=1).fit(x[rows], y[rows])          # noqa: E731
        self._sigma, self._trees = _held_out_scatter(lambda rows: grow(rows).predict, x, y, rng), grow(slice(None))

    def _answer(self, x):
        return self._trees.predict(x).reshape(len(x), -1).astype("f8"), self._sigma


class Components(FixedSet):
    """Linear regression on principal components of the inputs; their number by five-fold cross-validation. The plain method to fill in a spectrum.

    Inputs keep their scale, which says what matters in a spectrum: standardised, XP coefficients have components of noise, and errors two to six times as large.

    Parameters
    ----------
    degree : 2 adds squares and products of the components.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], seed: int = 0, degree: int = 1):
        super().__init__(inputs, outputs, seed)
        self.degree = degree

    @staticmethod
    def _centre_and_spread(x):
        centre, _ = FixedSet._centre_and_spread(x)
        return centre, np.ones(x.shape[1])

    def _learn(self, x, y, error, rng):
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LinearRegression
        from sklearn.model_selection import GridSearchCV, KFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import PolynomialFeatures, StandardScaler
        x, most = np.nan_to_num(x), min(x.shape[1], int(0.7 * len(x)))
        model = make_pipeline(PCA(random_state=self.seed), StandardScaler(), PolynomialFeatures(self.degree, include_bias=False), LinearRegression())
        numbers = {"pca__n_components": [*(n for n in COMPONENTS[self.degree] if n < most), *([most] if self.degree == 1 else [])]}
        search = GridSearchCV(model, numbers, cv=KFold(5, shuffle=True, random_state=self.seed), scoring="neg_mean_squared_error").fit(x, y)
        self.n_components = search.best_params_["pca__n_components"]
        self._sigma = _held_out_scatter(lambda rows: search.best_estimator_.fit(x[rows], y[rows]).predict, x, y, rng)
        self._model = search.best_estimator_.fit(x, y)

    def _answer(self, x):
        return self._model.predict(np.nan_to_num(x)).reshape(len(x), -1), self._sigma


def _held_out_scatter(fit, x, y, rng):
    """Robust scatter of each output on stars kept aside."""
    aside = rng.random(len(x)) < KEPT_ASIDE
    predict = fit(np.flatnonzero(~aside))
    return scatter((predict(x[aside]).reshape(aside.sum(), -1) - y[aside]).T)
