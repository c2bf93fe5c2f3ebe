"""The embedded library: stellar labels -> normalised flux and continuum, with gradients.

Line by line the flux is written as ``exp(-x**2)``, so ``x`` is the square root of an optical depth: it grows slowly and smoothly with
metallicity where the flux itself saturates. ``x`` is expanded in principal components whose coefficients are interpolated between the
computed models by thin-plate splines plus a quadratic polynomial. The models are LTE spectra (PySME, Stagger <3D> photospheres,
abundances of Asplund et al. 2009); see ``docs/library.md`` for what they do not contain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .errors import LabelError, MismatchError
from .weights import load_tensors

LABELS = ("teff", "logg", "feh", "alpha_fe", "c_fe")
CENTRE = (0.95, 3.25, -1.75, 0.2, 0.2)             # of 5040 K / teff, logg, feh, alpha_fe, c_fe
SCALE = (0.153, 2.25, 1.125, 0.88, 1.65)           # how far each label moves before the spectrum changes alike: least error when left out one by one


def coordinates(labels: Float[Tensor, "n 5"]) -> Float[Tensor, "n 5"]:
    """Labels (K, dex) -> the dimensionless coordinates in which the models are interpolated."""
    theta = torch.cat([5040.0 / labels[:, :1], labels[:, 1:]], 1)
    return (theta - labels.new_tensor(CENTRE)) / labels.new_tensor(SCALE)


def quadratic(x: Float[Tensor, "n 5"]) -> Float[Tensor, "n 21"]:
    """1, every coordinate, every product of two: the polynomial part of the interpolation."""
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return torch.cat([torch.ones_like(x[:, :1]), x, x[:, i] * x[:, j]], 1)


def thin_plate(x: Float[Tensor, "n 5"], nodes: Float[Tensor, "m 5"]) -> Float[Tensor, "n m"]:
    """Thin-plate radial basis ``r**4 ln(r)`` of the distances to the nodes; written with r**2 so that the gradient at a node is 0, not NaN."""
    r2 = torch.addmm(nodes.square().sum(1), x, nodes.T, alpha=-2) + x.square().sum(1, keepdim=True)
    return 0.5 * r2.square() * r2.clamp(min=1e-12).log()


@dataclass(frozen=True, eq=False)
class Library:
    """Interpolated model spectra of FGK stars.

    Attributes
    ----------
    wave : (n_pix,) vacuum Angstrom, equal steps in ln(wave).
    resolution : resolving power wave / FWHM of the stored spectra.
    sha256 : of the file of computed models; weights trained on this library carry the same.
    hull : (m, 4) half-spaces ``a . (teff / 1000, logg, feh) + b <= 0`` inside which model photospheres exist.
    box : (5, 2) least and greatest value of each label.
    c_over_alpha : largest [C/Fe] - [alpha/Fe]; beyond, C/O nears 1 and the star becomes a carbon star.
    """

    wave: Float[Tensor, " n_pix"]
    resolution: float
    sha256: str
    hull: Float[Tensor, "m 4"]
    box: Float[Tensor, "5 2"]
    c_over_alpha: float
    tensors: dict[str, Tensor]

    @classmethod
    def load(cls, path) -> Library:
        """Read an emulator file.

        Raises
        ------
        DataFileError
            The file is missing, truncated or corrupted.
        """
        tensors, meta = load_tensors(path)
        for name in ("flux", "cont"):
            tensors[f"{name}_components"] = tensors[f"{name}_components"].float() * tensors[f"{name}_step"][:, None]
        wave = torch.exp(meta["ln_wave_start"] + meta["ln_wave_step"] * torch.arange(tensors["flux_components"].shape[1], dtype=torch.float64))
        return cls(wave, meta["resolution"], meta["library_sha256"], tensors["hull"], tensors["box"], meta["c_over_alpha"], tensors)

    def flux(self, labels: Float[Tensor, "n 5"]) -> Float[Tensor, "n n_pix"]:
        """Flux over continuum of stars with these labels (teff K, logg, feh, alpha_fe, c_fe dex); differentiable.

        Raises
        ------
        LabelError
            A label lies outside the hull; the message names the nearest allowed ones.
        """
        self.check(labels)
        return self.flux_unchecked(labels)

    def flux_unchecked(self, labels: Float[Tensor, "n 5"]) -> Float[Tensor, "n n_pix"]:
        """``flux`` for labels that are known to be inside (an optimiser's steps, a population's draw)."""
        return torch.exp(-self.opacity(labels))

    def opacity(self, labels: Float[Tensor, "n 5"]) -> Float[Tensor, "n n_pix"]:
        """-ln(flux over continuum); for labels that are known to be inside."""
        return self._interpolate("flux", labels).square()

    def continuum(self, labels: Float[Tensor, "n 5"]) -> Float[Tensor, "n n_pix"]:
        """Continuum flux at the stellar surface, erg / cm2 / s / A.

        Raises
        ------
        LabelError
            A label lies outside the hull.
        """
        self.check(labels)
        return self.continuum_at(self.wave.numpy(), labels)

    def continuum_at(self, wave: Float[np.ndarray, " n_new"], labels: Float[Tensor, "n 5"]) -> Float[Tensor, "n n_new"]:
        """``continuum`` at other wavelengths (vacuum Angstrom) of labels that are known to be inside."""
        knots = 10.0 ** self._interpolate("cont", labels)
        position = (wave - float(self.tensors["cont_wave"][0])) / float(self.tensors["cont_wave"][1] - self.tensors["cont_wave"][0])
        left = torch.as_tensor(np.clip(position.astype(int), 0, knots.shape[1] - 2))
        return torch.lerp(knots.index_select(1, left), knots.index_select(1, left + 1), (torch.as_tensor(position) - left).to(knots))

    def excess(self, labels: Float[Tensor, "n 5"]) -> Float[Tensor, " n"]:
        """How far each star is outside the hull (dimensionless); at most 0 inside."""
        scaled = torch.cat([labels[:, :1] / 1000, labels[:, 1:3]], 1)
        faces = scaled @ self.hull[:, :3].T.to(labels) + self.hull[:, 3].to(labels)
        span = (self.box[:, 1] - self.box[:, 0]).to(labels)
        walls = torch.cat([self.box[:, 0].to(labels) - labels, labels - self.box[:, 1].to(labels)], 1) / span.repeat(2)
        carbon = labels[:, 4:] - labels[:, 3:4] - self.c_over_alpha
        return torch.cat([faces, walls, carbon], 1).amax(1)

    def contains(self, labels: Float[Tensor, "n 5"]):
        """Boolean (n,): inside the hull."""
        return self.excess(labels) <= 1e-6

    def check(self, labels: Float[Tensor, "n 5"]) -> None:
        """Raise ``LabelError`` for the first star outside the hull, naming the nearest allowed labels."""
        if not torch.isfinite(labels).all():
            raise LabelError("A label is NaN or infinite; the library needs finite teff, logg, feh, alpha_fe, c_fe.")
        outside = torch.nonzero(~self.contains(labels.detach())).flatten()
        if len(outside):
            i = int(outside[0])
            raise LabelError(f"{len(outside)} of {len(labels)} stars lie outside the library. Star {i} has {_text(labels[i])}; "
                             f"the nearest allowed labels are {_text(self.nearest(labels[i]))}.")

    def nearest(self, labels: Float[Tensor, " 5"]) -> Float[Tensor, " 5"]:
        """The allowed labels closest to these, where 1000 K, 1 dex of logg and feh, 0.5 dex of alpha_fe and c_fe count alike.

        They lie 0.011 inside slanted borders, so that they stay allowed when rounded to 1 K and 0.01 dex, as ``check`` prints them. Least-distance
        programming as non-negative least squares (Lawson & Hanson 1974, Solving Least Squares Problems, chapter 23): exact, without a starting point.

        Raises
        ------
        LabelError
            A label is NaN or infinite, or so far away (1e9 K) that rounding leaves no answer.
        """
        from scipy.optimize import nnls
        unit, hull = np.array([1000.0, 1, 1, 0.5, 0.5]), self.hull.double().numpy()
        x0, low, high = labels.detach().double().numpy() / unit, *(self.box.double().numpy() / unit[:, None]).T
        if not np.isfinite(x0).all():
            raise LabelError("A label is NaN or infinite; no allowed labels are nearest to it.")
        walls = np.concatenate([np.pad(hull[:, :3], ((0, 0), (0, 2))), [[0, 0, 0, -0.5, 0.5]], -np.eye(5), np.eye(5)])
        beyond = walls @ x0 + np.concatenate([hull[:, 3] + 0.011, [0.011 - self.c_over_alpha], low, -high])
        system, last = np.vstack([-walls.T, beyond]), np.eye(6)[5]
        rest = last - system @ nnls(system, last)[0]
        with np.errstate(divide="ignore", invalid="ignore"):                       # where nothing is allowed, or rounding has eaten it: not inside, below
            found = torch.as_tensor((x0 - rest[:5] / rest[5]) * unit)
        if not self.contains(found[None])[0]:
            raise LabelError(f"No allowed labels were found near {_text(labels)}; expected K and dex. Check the units, and whether columns are in the order "
                             f"{', '.join(LABELS)}.")
        return found.to(labels)

    def require(self, sha256: str, what: str) -> None:
        """Raise ``MismatchError`` unless ``what`` was made with this very library."""
        if sha256 != self.sha256:
            raise MismatchError(f"{what} was made with library {sha256[:12]}, the one installed is {self.sha256[:12]}: its labels would be wrong. "
                                "Retrain it, or install the release it came with.")

    def _interpolate(self, name: str, labels: Tensor) -> Tensor:
        t, x = self.tensors, coordinates(labels.double())         # hundreds of large terms cancel: 32 bits would leave 2e-4
        coefficient = thin_plate(x, t["nodes"]) @ t[f"{name}_radial"] + quadratic(x) @ t[f"{name}_polynomial"]
        return torch.addmm(t[f"{name}_mean"], coefficient.to(t[f"{name}_components"]), t[f"{name}_components"])


def _text(labels) -> str:
    return ", ".join(f"{name} = {value:.0f} K" if name == "teff" else f"{name} = {value:+.2f}" for name, value in zip(LABELS, labels.tolist(), strict=True))


@cache
def load_library(name: str = "optical") -> Library:
    """A library shipped with the package, all of the same stars: ``"optical"`` 3951-5651 A (vacuum) at R = 5000, ``"xp"`` 3331-10253 A at R = 2500,
    ``"hband"`` 15154-16954 A at R = 22,500."""
    path = files("spectrakit") / "assets" / f"library_{name}.safetensors"
    return Library.load(path)


