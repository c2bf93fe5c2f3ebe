"""From spectra to labels that can be handed on: several witnesses, what speaks against each star, and where every number comes from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy.table import Column, Table

from .continuum import LEAST, coverage, normalize
from .errors import DataFileError
from .library import LABELS, load_library
from .manifests import cite
from .models.foundation import HEAD_LABELS, FoundationModel
from .models.shipped import load_model
from .novelty import digest
from .objects import is_star
from .spectra import SpectraSet
from .witnesses import APART, CHI2, PHYSICAL, library_spectra, measure

FILES = ("labels.ecsv", "provenance.json", "spectra.png", "spectra.pdf", "report.md")
SHOWN = 6       # spectra in the figure


@dataclass(frozen=True, eq=False)
class Report:
    """Labels of ``n`` spectra, and what to distrust.

    table : one row a spectrum: ``star``, the columns of ``witnesses.measure``, and ``flags``, the reasons that hold, empty when nothing speaks against the
        labels. NaN where nothing was measured: what is no star, or has too few usable pixels.
    spectra : the m that were measured, normalised. rows : (m,) their rows in ``table``.
    provenance : of spectra, models, library and software, with what to cite; JSON-able.
    """

    table: Table
    spectra: SpectraSet
    rows: np.ndarray
    provenance: dict

    def figure(self):
        """The first six measured spectra, each over the library at the labels of the physical fit; a matplotlib Figure.

        Raises
        ------
        DataFileError
            None was measured.
        """
        import matplotlib.pyplot as plt

        from .plots import GREY, RED
        if not len(self.rows):
            raise DataFileError(f"None of the {len(self.table)} spectra was measured, there is nothing to draw: see table['flags'].")
        found = self.table[self.rows[:SHOWN]]
        model = library_spectra(np.stack([np.asarray(found[f"{name}_{PHYSICAL}"]) for name in LABELS], 1), self.spectra)
        fig, axes = plt.subplots(len(found), 1, figsize=(10, 0.7 + 1.8 * len(found)), squeeze=False, sharex=True, layout="constrained")
        for ax, row, seen, mask, expected in zip(axes[:, 0], found, self.spectra.flux, self.spectra.mask, model.flux, strict=False):
            ax.plot(self.spectra.wave, np.where(mask, np.nan, seen), color=GREY, lw=0.7, label="spectrum")
            ax.plot(model.wave, expected, color=RED, lw=0.8, ls="--", label="library at the labels of the physical fit")
            ax.set_title(f"{row['star']}, S/N {row['snr']:.0f}; flags: {row['flags'] or 'none'}", fontsize=9, loc="left")
            ax.set(ylabel="flux / continuum", ylim=(0.1, 1.5))
        axes[0, 0].legend(fontsize=8, ncols=2, loc="lower right")
        axes[-1, 0].set_xlabel("wavelength in vacuum [Å]")
        return fig

    def write(self, folder) -> Path:
        """``labels.ecsv``, ``provenance.json``, ``spectra.png`` and ``.pdf``, ``report.md`` in ``folder``, which is made, and must not hold a report yet.

        Raises
        ------
        DataFileError
            One of these files is there already.
        """
        import matplotlib.pyplot as plt
        folder = Path(folder)
        there = [name for name in FILES if (folder / name).exists()]
        if there:
            raise DataFileError(f"{folder} holds {', '.join(there)} already, perhaps of other stars; nothing is overwritten. Choose another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as unfinished:
            part = Path(unfinished)
            self.table.write(part / "labels.ecsv", format="ascii.ecsv")
            (part / "provenance.json").write_text(json.dumps(self.provenance, indent=1), encoding="utf-8")
            if len(self.rows):
                fig = self.figure()
                for name in ("spectra.png", "spectra.pdf"):
                    fig.savefig(part / name)
                plt.close(fig)
            (part / "report.md").write_text(self._text(), encoding="utf-8")
            for path in part.iterdir():
                os.replace(path, folder / path.name)
        return folder

    def _text(self):
        names = [*self.provenance["models"], PHYSICAL]
        said = lambda row, label: ", ".join(_said(label, row[f"{label}_{name}"], row[f"{label}_{name}_sigma"]) for name in names)               # noqa: E731
        lines = [["star", "S/N", "flags", *HEAD_LABELS], ["---"] * (3 + len(HEAD_LABELS)),
                 *([str(row["star"]), f"{row['snr']:.0f}", row["flags"] or "none", *(said(row, label) for label in HEAD_LABELS)] for row in self.table)]
        flagged = sum(bool(text) for text in self.table["flags"])
        figure = "![spectra](spectra.png)\n\n" if len(self.rows) else ""
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return (f"# Labels of {len(self.table)} spectra, {flagged} flagged\n\nteff in K, the others in dex; each by {', '.join(names)}. More: `labels.ecsv`.\n\n"
                f"{table}\n\n{figure}## Provenance\n\n```json\n{json.dumps(self.provenance, indent=1)}\n```\n\n## To cite\n\n"
                f"```bibtex\n{self.provenance['cite']}\n```\n")


def report(stars: SpectraSet, models: Mapping[str, FoundationModel] | None = None) -> Report:
    """Labels by each of ``models`` and by the physical fit, with what speaks against them.

    Parameters
    ----------
    stars : rest-frame spectra, raw or normalised as the models want them. What is no star, and spectra with less than 80 % usable pixels, stay in the table,
        flagged and without labels.
    models : name -> model; ``small`` and ``small_flux`` by default. The distance from the pretraining spectra is that of the first.

    Raises
    ------
    MismatchError, SpectrumError
        As ``FoundationModel.prepare`` and ``PhysicalFit.fit_labels``.
    """
    models = {name: load_model(name) for name in ("small", "small_flux")} if models is None else dict(models)
    star, whole = is_star(stars), coverage(stars) >= LEAST
    rows = np.flatnonzero(star & whole)
    card = next(iter(models.values())).card
    spectra = normalize(stars[rows], card.recipe, card.grid) if stars.normalization == "none" else stars[rows]
    measured, against = measure(spectra, models)
    table = Table({"star": stars.labels["star"] if "star" in stars.labels.colnames else np.arange(len(stars)).astype(str)})
    for name in measured.colnames:
        table[name] = Column(np.full(len(stars), np.nan), unit=measured[name].unit)
        table[name][rows] = measured[name]
    flags = np.select([~star, ~whole], ["no star", "too few usable pixels"], "").astype(object)
    flags[rows] = ["; ".join(reason for reason, held in against.items() if held[i]) for i in range(len(rows))]
    table["flags"] = Column(flags.astype(str), description="what speaks against the labels; empty: nothing found")
    return Report(table, spectra, rows, _provenance(stars, models))


def _said(label, value, sigma):
    digits = 0 if label == "teff" else 2
    return f"{value:.{digits}f} ± {sigma:.{digits}f}" if np.isfinite(value) else "-"


def _provenance(stars, models):
    try:
        entries = cite(stars)
    except DataFileError as unknown:
        entries = f"% {unknown}"
    return {"spectra": stars.provenance, "survey": stars.survey, "medium": stars.medium, "frame": stars.frame, "noise": stars.noise,
            "models": {name: {"sha256": digest(model), "pretrained on": model.card.survey} for name, model in models.items()},
            "library": {"optical": load_library().sha256}, "limits": {"chi2": CHI2, "apart": APART, "usable pixels": LEAST},
            "software": {"python": platform.python_version(), **{name: version(name) for name in ("spectrakit", "numpy", "torch", "astropy")}},
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "cite": entries}
