"""Gaia XP: how well can a classifier tell simulated from real sources, and what gives them away?

    SPECTRAKIT_DATA=FOLDER python benchmarks/realism_xp.py

Every real source with 0.75 < BP-RP < 1.2 and 11 < G < 17.5 gets a simulated star of the population `gaia` with its BP-RP (the nearest of 12,000 not
yet taken) and its G. Nothing else is matched, because nothing else is known of the real ones. A classifier sees the 110 coefficients over the G flux,
or the 343 points over the value at 550 nm. Systematics are switched on one after the other; `velocity` and `spread` do not exist here. AUC and interval
as in realism.py. Below, with all systematics: bright and faint sources; groups of coefficients (counted from 0) and of wavelengths alone, and all
others without them. Stars of another population in place of the real ones show what a wrong mix of stars alone would do.
"""

from dataclasses import replace

import numpy as np
import torch
from realism import CLASSIFIERS, auc

import spectrakit as sk
from spectrakit import gaia_xp
from spectrakit.library import LABELS, load_library
from spectrakit.population import catalogue
from spectrakit.simulation import observe
from spectrakit.surveys import GAIA_XP

COLOUR, G, POOL = (0.75, 1.2), (11.0, 17.5), 12000
ORDERS = ((0, 4), (5, 14), (15, 29), (30, 54))
RANGES = (3360, 4000, 4500, 5000, 5500, 6000, 6300, 6600, 7000, 7500, 8000, 8500, 9000, 9500, 10201)
LIBRARY = load_library("xp")


def real_sources():
    """Coefficients, BP-RP and G of the sources inside the limits."""
    coeff = np.asarray(sk.read("gaia_xp").labels["coeff"])
    with np.errstate(invalid="ignore"):                                        # a faint source's band can be negative: no magnitude, left out
        g, bp, rp = gaia_xp.load_design().magnitudes(coeff).T
    colour, bright = (bp - rp > COLOUR[0]) & (bp - rp < COLOUR[1]), (g > G[0]) & (g < G[1])
    print(f"{len(coeff)} sources; {colour.sum()} with {COLOUR[0]} < BP-RP < {COLOUR[1]}, of these {(colour & bright).sum()} with {G[0]} < G < {G[1]}")
    return coeff[colour & bright], (bp - rp)[colour & bright], g[colour & bright]


def expose(table, systematics, rng):
    numbers = np.stack([np.asarray(table[name], "f8") for name in LABELS], 1)
    return observe(lambda rows: LIBRARY.opacity(torch.as_tensor(numbers[rows])), table, GAIA_XP, LIBRARY, rng, systematics)


def matched(colour, g, seed, population=GAIA_XP.population):
    """Stars of a population, one for each real source: its G, and the nearest BP-RP (without noise) that no other source has taken."""
    stars = catalogue(population, POOL, seed, LIBRARY)
    stars["g"] = np.full(POOL, 9.0)
    own = np.asarray(expose(stars, GAIA_XP.systematics.scaled(0.0), np.random.default_rng(seed)).labels["bp_rp"])
    free, row = np.ones(POOL, bool), np.empty(len(colour), int)
    for i in np.random.default_rng(seed).permutation(len(colour)):
        row[i] = np.where(free, np.abs(own - colour[i]), np.inf).argmin()
        free[row[i]] = False
    print(f"population {population}: BP-RP within {np.abs(own[row] - colour).max():.4f} mag, mean E(B-V) {np.mean(stars['ebv'][row]):.2f}, "
          f"giants (logg < 3.5) {np.mean(stars['logg'][row] < 3.5):.0%}")
    stars = stars[row]
    stars["g"] = g
    return stars


def views(coeff):
    """What the classifier sees."""
    flux = coeff @ gaia_xp.load_design().flux.T
    light = gaia_xp.g_flux(gaia_xp.load_design().magnitudes(coeff)[:, 0])
    return {"coefficients": coeff / light[:, None], "343 points": flux / flux[:, [np.argmin(np.abs(gaia_xp.WAVE - 5500))]]}


def groups():
    """Columns of each view, by name."""
    for start, arm in ((0, "BP"), (55, "RP")):
        for first, last in ORDERS:
            yield "coefficients", f"{arm} {first}-{last}", np.isin(np.arange(110), np.arange(start + first, start + last + 1))
    yield "coefficients", "both 15-54", np.arange(110) % 55 >= 15
    for low, high in zip(RANGES[:-1], RANGES[1:], strict=True):
        yield "343 points", f"{low}-{high} A", (gaia_xp.WAVE >= low) & (gaia_xp.WAVE < high)


def measure(real, simulated, kind):
    return auc(real, simulated, np.arange(len(real)), kind, n_components=None)


def show(text, real, simulated, rows=slice(None)):
    """One line of the table."""
    cells = [measure(real[view][rows], simulated[view][rows], kind) for view in real for kind in CLASSIFIERS]
    print(f"{text:28s}" + "".join("{:12.3f} ({:.3f}-{:.3f})".format(*cell) for cell in cells), flush=True)


def show_group(view, name, part, real, simulated):
    """AUC of a group alone and of all others; where in it the medians differ most, in units of the real robust scatter."""
    scatter = 1.4826 * np.median(np.abs(real - np.median(real, 0)), 0)
    change = np.median(real - simulated, 0) / np.maximum(scatter, 1e-12)      # at 550 nm every flux is 1
    worst = np.flatnonzero(part)[np.abs(change[part]).argmax()]
    where = ("BP ", "RP ")[worst // 55] + str(worst % 55) if view == "coefficients" else f"{gaia_xp.WAVE[worst]:.0f} A"
    alone, others = (measure(real[:, chosen], simulated[:, chosen], "linear")[0] for chosen in (part, ~part))
    print(f"{name:14s} {alone:.3f} {others:.3f} {change[worst]:+.2f} at {where}", flush=True)


if __name__ == "__main__":
    coeff, colour, g = real_sources()
    rng, full, real = np.random.default_rng(0), GAIA_XP.systematics, views(coeff)
    stars, again, giants = (matched(colour, g, *choice) for choice in ((0,), (1,), (2, "desi_x_apogee")))

    def see(table, systematics):
        return views(np.asarray(expose(table, systematics, rng).labels["coeff"]))

    print(f"{'systematics':28s}" + "".join(f"{f'{view}, {kind}':>26s}" for view in real for kind in CLASSIFIERS))
    on = full.scaled(0.0)
    steps = [("noise alone", on)] + [(f"+ {key}", on := replace(on, **{key: getattr(full, key)})) for key in ("tilt", "calibration", "lines")]
    for text, systematics in [*steps, ("all, twice as strong", full.scaled(2.0))]:
        show(text, real, see(stars, systematics))
    simulated = see(stars, full)
    show(f"all, G < 15 ({(g < 15).sum()})", real, simulated, g < 15)
    show(f"all, G > 16.5 ({(g > 16.5).sum()})", real, simulated, g > 16.5)
    show("control: simulated twice", simulated, see(again, full))
    show("another population", simulated, see(giants, full))
    print("group: AUC (linear) alone, AUC of all others, largest median of real - simulated in units of the real scatter")
    for view, name, part in groups():
        show_group(view, name, part, real[view], simulated[view])
